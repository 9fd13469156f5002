"""The benchmarks' machinery: that contenders are checked, take turns and are reported, that floors are computed, that asv finds all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn.backends.ceilings import Ceilings

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of this distribution", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import errors, layers  # noqa: E402
from benchmarks.cases import CONVOLUTIONS, agree, check_adjoint, check_convolution  # noqa: E402
from benchmarks.compare import __main__ as command  # noqa: E402
from benchmarks.compare import report, rows, session  # noqa: E402
from benchmarks.networks import NETWORKS, batch_of, seeded  # noqa: E402


def settings(folder: Path, peers_python: str | None = None) -> session.Settings:
    return session.Settings(peers_python, rounds=2, seconds=0.0, folder=folder, say=lambda text: None)


def row(kind: str, *contenders: str, limit: float = 1e9, batch: int = 1) -> rows.Row:
    return rows.Row(
        kind, "lenet5", batch, contenders, (rows.Bar(limit, contenders[1:]),), "training" if kind == "training" else "inference"
    )


# ---- the table of rows -----------------------------------------------------------------------------------------------------


def test_rows_have_names_of_their_own_and_known_contenders() -> None:
    assert len({r.name for r in rows.ROWS}) == len(rows.ROWS)
    for r in rows.ROWS:
        assert set(r.contenders) <= set(rows.CONTENDERS)
        assert rows.CONTENDERS[r.contenders[0]].ours
        assert all(set(bar.over) <= set(r.contenders[1:]) for bar in r.bars)
        assert r.network in NETWORKS
        assert r.section in report.SECTIONS


def test_rows_are_selected_by_parts_of_names_and_sections() -> None:
    assert {r.section for r in rows.selected("memory,threads")} == {"memory", "threads"}
    assert [r.name for r in rows.selected("start/resnet18")] == ["start/resnet18-b1", "start/resnet18-b1@pocl-3.1"]
    with pytest.raises(ValueError, match="no row contains 'alexnet'"):
        rows.selected("inference,alexnet")


def test_every_contender_has_its_file() -> None:
    folder = ROOT / "benchmarks" / "compare" / "contenders"
    assert {c.module for c in rows.CONTENDERS.values()} <= {path.stem for path in folder.glob("*.py")}
    assert not (folder / "__init__.py").exists(), "asv would import the peers"


# ---- a session ---------------------------------------------------------------------------------------------------------------


def test_contenders_take_turns_and_missing_ones_are_named(tmp_path: Path) -> None:
    made = session.Session(settings(tmp_path))
    result = made.measure(row("inference", "reference", "cpu-1thread", "onnxruntime"))
    assert len(result.entries["reference"].values) == 2
    assert len(result.entries["cpu-1thread"].values) == 2
    assert result.entries["onnxruntime"].problem.startswith("missing: no environment of peers")
    assert made.versions["reference"]["pycl_cnn"] == pc.__version__
    text = report.markdown([report.Record([result], machine(), made.versions)])
    assert "missing [1]" in text
    assert "1. inference/lenet5-b1@reference, onnxruntime: missing" in text


def test_a_peer_that_is_not_installed_is_missing(tmp_path: Path) -> None:
    made = session.Session(settings(tmp_path, str(tmp_path / "nowhere" / "bin" / "python")))
    result = made.measure(row("inference", "reference", "torch"))
    assert "does not start" in result.entries["torch"].problem
    assert result.entries["reference"].values


def test_training_rows_compare_losses_and_gradients(tmp_path: Path) -> None:
    result = session.Session(settings(tmp_path)).measure(row("training", "reference", "cpu-1thread", batch=4))
    assert not any(entry.problem for entry in result.entries.values())
    assert all(len(entry.values) == 2 for entry in result.entries.values())


def test_pytorch_agrees_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    made = session.Session(settings(tmp_path, sys.executable))
    for kind in ("inference", "training"):
        result = made.measure(row(kind, "cpu", "torch", batch=2))
        assert not result.entries["cpu"].problem
        assert result.entries["torch"].values


@pytest.mark.parametrize("kind", ["memory", "start"])
def test_fresh_processes(tmp_path: Path, kind: str) -> None:
    once = settings(tmp_path)
    once.rounds = 1
    result = session.Session(once).measure(row(kind, "reference", "cpu-1thread"))
    for entry in result.entries.values():
        assert len(entry.values) == 1
        assert min(entry.values) > (2**24 if kind == "memory" else 0)


def test_a_worker_that_dies_says_so(tmp_path: Path) -> None:
    worker = session.Worker(rows.CONTENDERS["reference"], settings(tmp_path))
    worker.process.kill()
    with pytest.raises(session.ContenderError, match="the process ended with status -9"):
        worker.ask("memory")
    worker.close()


def test_an_answer_that_is_wrong_is_found() -> None:
    right = {"output": np.array([1.0, -2.0, 3.0])}
    assert session.disagreement({"output": np.array([[1.0], [-2.0005], [3.0]])}, right) == ""
    assert "differs by 0.33" in session.disagreement({"output": np.array([1.0, -1.0, 3.0])}, right)
    assert "has shape" in session.disagreement({"output": np.zeros(4)}, right)
    step = {"loss": np.array([2.0, 1.0, 0.5]), "update w": np.ones(4, np.float32), "update b": np.full(2, 1e-9, np.float32)}
    assert session.disagreement(step | {"update b": np.zeros(2, np.float32)}, step) == ""
    assert "loss is 2.1" in session.disagreement(step | {"loss": np.array([2.1, 1.0, 0.5])}, step)
    assert "losses of the first steps" in session.disagreement(step | {"loss": np.array([2.0, 1.0, 0.6])}, step)
    assert "gradient of w" in session.disagreement(step | {"update w": np.array([1, 1, 1, 0.5], np.float32)}, step)
    assert "parameters are" in session.disagreement({"loss": step["loss"]}, step)
    assert session.disagreement({"output": np.array([np.nan, 0, 0])}, right) != ""


# ---- the report --------------------------------------------------------------------------------------------------------------


def machine() -> dict[str, object]:
    from benchmarks.compare.machine import describe

    return describe() | {"command": "python -m benchmarks.compare", "threads": 2, "rounds": 2, "seconds": 0.1}


def record(*results: session.Result, **changed: object) -> report.Record:
    return report.Record(list(results), machine() | changed, {})


def result(ours: float, peer: float, limit: float, batch: int = 1) -> session.Result:
    known = rows.Row("inference", "resnet18", batch, ("cpu", "torch", "ncnn"), (rows.Bar(limit, ("torch", "ncnn")),), "inference")
    entries = {
        "cpu": session.Entry([ours] * 3),
        "torch": session.Entry([peer] * 3),
        "ncnn": session.Entry(problem="missing: not installed"),
    }
    return session.Result(known, entries)


def test_losses_are_shown_with_wins() -> None:
    text = report.markdown([record(result(0.010, 0.020, 0.65), result(0.030, 0.020, 0.65, batch=2))])
    assert "| ResNet-18 224, batch 1 | **10.0** | 20.0 | missing [1] | 0.50 | bar 0.65: met (0.5 of PyTorch) |" in text
    assert "| ResNet-18 224, batch 2 | 30.0 | **20.0** | missing [2] | 1.50 | bar 0.65: **missed** (1.5 of PyTorch) |" in text
    assert "1 to be reached were met, 1 missed, 0 not measured." in text


def test_results_survive_json_and_blocks_are_replaced(tmp_path: Path) -> None:
    known = next(r for r in rows.ROWS if r.name == "start/resnet18-b1")
    entries = {"cpu": session.Entry([0.2, 0.1]), "onnxruntime": session.Entry([0.2]), "openvino": session.Entry(problem="missing: x")}
    source, page = tmp_path / "results.json", tmp_path / "page.md"
    source.write_text(report.to_json(report.Record([session.Result(known, entries)], machine(), {"cpu": {"pycl_cnn": "1"}})))
    assert [r["row"] for r in json.loads(source.read_text())["rows"]] == [known.name]
    page.write_text(f"# Before\n\n{report.begin('compare')}\nstale\n{report.end('compare')}\n\nAfter.\n")
    assert command.main(["--from", str(source), "--out", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter.\n")
    assert "stale" not in text
    assert "| ResNet-18 224, batch 1 | **150** | 200 |" in text
    page.write_text(report.begin("compare"))
    with pytest.raises(ValueError, match="no end mark"):
        report.put_block(page, "compare", "new")


def test_sessions_are_joined_by_rows_and_threads(tmp_path: Path) -> None:
    known = {r.name: r for r in rows.ROWS}

    def session_of(name: str, times: dict[str, float], **changed: object) -> Path:
        entries = {
            row: session.Result(known[row], {"cpu": session.Entry([seconds]), "torch": session.Entry([0.1])}) for row, seconds in times.items()
        }
        path = tmp_path / f"{name}.json"
        path.write_text(report.to_json(record(*entries.values(), command=f"python -m {name}", **changed)))
        return path

    page = tmp_path / "page.md"
    files = [
        session_of("first", {"inference/vgg16-b1": 0.02, "inference/lenet5-b1": 0.04}),
        session_of("second", {"inference/vgg16-b1": 0.03}),
        session_of("third", {"inference/vgg16-b1": 0.05}, threads=1),
    ]
    command.main([word for path in files for word in ("--from", str(path))] + ["--out", str(page)])
    text = page.read_text()
    assert all(f"    python -m {name}\n" in text for name in ("first", "second", "third"))
    two, one = text.partition("### Inference, 1 thread\n")[::2]
    assert "### Inference, 2 threads\n" in two
    assert two.index("| LeNet-5 28x28, batch 1 | **40.0** | 100 |") < two.index("| VGG-16 224, batch 1 | **30.0** | 100 |")
    assert "20.0" not in text
    assert "| VGG-16 224, batch 1 | **50.0** | 100 |" in one


def test_command_line_in_the_report_names_no_places() -> None:
    given = ["--rows", "memory", "--peers-python", "/somewhere/bin/python", "--out=/somewhere/else.md", "--rounds", "3"]
    assert command._public(given) == ["--rows", "memory", "--peers-python", "PEERS/bin/python", "--rounds", "3"]


def test_unknown_rows_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--rows", "alexnet"])
    assert stop.value.code == 2
    assert "no row contains 'alexnet'" in capsys.readouterr().err


# ---- weights, checks, floors ---------------------------------------------------------------------------------------------------


def test_weights_make_batch_norms_real() -> None:
    model = seeded(NETWORKS["mobilenet_v2"])
    statistics = {name: value for name, value in model.state_dict().items() if name.endswith("running_mean")}
    assert all(np.ptp(value) > 0 for value in statistics.values())
    again = seeded(NETWORKS["mobilenet_v2"]).state_dict()
    assert all(np.array_equal(value, again[name]) for name, value in model.state_dict().items())
    images, labels = batch_of(NETWORKS["lenet5"], 3)
    assert images.shape == (3, 1, 28, 28)
    assert labels.dtype == np.int32


def test_checks_of_benchmarks_notice_what_is_wrong() -> None:
    layer = CONVOLUTIONS["lenet5.conv1"]
    pc.manual_seed(0)
    module = layer.module()
    x = np.random.default_rng(0).standard_normal(layer.input_shape, dtype=np.float32)
    y = module(x, device="reference", layout="NHWC")
    check_convolution(y, x, module.weight.data, module.bias.data, layer)
    with pytest.raises(AssertionError):
        check_convolution(y * 1.01, x, module.weight.data, module.bias.data, layer)
    with pytest.raises(AssertionError):
        agree(np.zeros(3), np.zeros(4))
    check_adjoint(1.0, 1.0 + 1e-6, 1.0, 1.0)
    with pytest.raises(AssertionError):
        check_adjoint(1.0, 1.0, 1.1, 1.0)


@pytest.mark.parametrize("train", [False, True])
def test_floor_table_lists_every_step(train: bool) -> None:
    program, arrays = layers.make_program("lenet5", 2, "reference", train)
    found = layers.measure(program, arrays, Ceilings(1e9, ((1, 1e9),)), rounds=1, repeat=1)
    assert [layer.number for layer in found] == list(range(len(program.steps)))
    assert all(layer.floor == max(layer.work, layer.nbytes) / 1e9 for layer in found)
    cells = layers.rows(found)
    gaps = [float(line[-1]) for line in cells[:-1]]
    assert gaps == sorted(gaps, reverse=True)
    assert cells[-1][1] == "total"
    assert len(layers.as_text(cells).splitlines()) == len(layers.as_markdown(cells).splitlines()) - 1 == len(found) + 2


def test_asv_tracks_every_row_of_the_cpu() -> None:
    """What is compared with other engines is also followed over time."""
    from benchmarks import bench_import, bench_networks, bench_training

    kinds: dict[str, set[tuple[str, int]]] = {}
    for r in rows.ROWS:
        if r.contenders[0] == "cpu" and r.section != "threads":
            kinds.setdefault(r.kind, set()).add((r.network, r.batch))
    assert kinds["memory"] <= set(bench_import.Memory.params[0])
    assert kinds["training"] <= set(bench_training.BATCHES.items())
    batches = {("resnet18", batch) for batch, _ in bench_networks.Batch.params[0]}
    assert kinds["inference"] <= {(name, 1) for name in bench_networks.Inference.params[1]} | batches
    assert kinds["start"] == {("resnet18", 1)}
    assert (1, 1) in bench_networks.Batch.params[0]  # on one thread


def test_asv_finds_the_benchmarks() -> None:
    discovery = pytest.importorskip("asv_runner.discovery", reason="asks asv what it finds")
    found = {benchmark.name for benchmark in discovery.disc_benchmarks(str(ROOT / "benchmarks"))}
    expected = {
        "bench_conv.Conv2d.time_forward",
        "bench_networks.Inference.time_run",
        "bench_networks.Batch.time_run",
        "bench_networks.Ready.time_ready",
        "bench_training.Step.time_step",
        "bench_import.Memory.peakmem_inference",
    }
    assert expected <= found
    assert all(name.startswith("bench_") for name in found)


# ---- errors --------------------------------------------------------------------------------------------------------------------


def test_float64_of_the_error_table_is_that_of_the_operations() -> None:
    from pycl_cnn.geometry import ConvGeometry
    from pycl_cnn.ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight

    generator = np.random.default_rng(0)
    geometry = ConvGeometry.forward("conv", (2, 9, 8, 3), (5, 3, 3, 3), stride=(2, 1), padding=((0, 2), (1, 1)), dilation=(1, 2))
    x, w, dy = (generator.standard_normal(shape) for shape in (geometry.input_shape, geometry.weight_shape, geometry.output_shape))
    dx, dw = errors.gradients(geometry, x, w, dy)
    np.testing.assert_allclose(errors.convolve(geometry, x, w), Conv(geometry).reference(x, w)[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, ConvBackwardInput(geometry).reference(dy, w)[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dw, ConvBackwardWeight(geometry).reference(x, dy)[0], rtol=1e-12, atol=1e-12)


def test_error_table_has_every_layer_of_several_taps(tmp_path: Path) -> None:
    assert [len(list(errors.layers_of(NETWORKS[name]))) for name in ("resnet18", "lenet5")] == [17, 2]
    page = tmp_path / "page.md"
    assert errors.main(["--network", "mobilenet_v2,lenet5", "--out", str(page)]) == 0
    first, second, _ = [line for line in page.read_text().splitlines() if line.startswith(("| MobileNetV2", "| LeNet-5"))]
    assert first.startswith("| MobileNetV2 224 | features.0.0 | 1x224x224x3 | 32 | lines | ")
    assert second.startswith("| LeNet-5 28x28 | conv1 | 1x28x28x1 | 6 | lines | ")
    with pytest.raises(SystemExit):
        errors.main(["--network", "alexnet"])


def test_a_matrix_product_is_compared_with_the_devices_multiply_add_loop(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import opencl_gemm

    found = [device for device in pc.devices() if device.backend == "opencl"]
    if not found:
        pytest.skip("no OpenCL device on this machine")
    assert opencl_gemm.main(["--device", found[0].label, "--size", "64", "--rounds", "2"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    name, loop, product, elapsed, _ = (cell.strip() for cell in row.strip("|").split("|"))
    assert found[0].name in name and float(loop.split()[0]) > 0 and float(product) >= 0 and 0 < float(elapsed) < 10
