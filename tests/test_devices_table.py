"""The table of docs/devices.md: rows in place of older ones, read back as they were written."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pycl_cnn as pc

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of this distribution", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import devices  # noqa: E402

ROW = devices.Row("Wonder", "Acme OpenCL 3.0, 7", "Zen", "2026-11-21, abc", "suite: 5 passed", "3 pass, 0 fail", "1.2", "70%")


def test_rows_are_read_back():
    rows = [ROW, replace(ROW, device="Other")]
    page = f"before\n{devices.begin(devices.BLOCK)}\n\n{devices.render(rows)}\n\n{devices.end(devices.BLOCK)}\n"
    assert devices.read_rows(page) == sorted(rows, key=lambda row: row.device)
    assert devices.read_rows("no table") == []


def test_a_row_takes_its_predecessors_place(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "run_tests", lambda kind, device: f"{kind}: 7 passed")
    monkeypatch.setattr(devices, "MEASURE_SECONDS", 0.01)
    path = tmp_path / "devices.md"
    path.write_text("# Devices\n")
    for kind in ("suite", "kernels"):
        assert devices.main(["--device", "cpu", "--network", "lenet5", "--tests", kind, "--out", str(path)]) == 0
    (row,) = devices.read_rows(path.read_text())
    assert row.device == pc.device("cpu").name and row.tests == "kernels: 7 passed" and float(row.resnet18) > 0 and row.ceiling.endswith("%")
    assert path.read_text().startswith("# Devices\n")


def test_the_published_table_is_one():
    page = (ROOT / "docs" / "devices.md").read_text()
    rows = devices.read_rows(page)
    assert rows and len({row.key for row in rows}) == len(rows) and all(" 0 fail" in row.check or row.check == "-" for row in rows)
