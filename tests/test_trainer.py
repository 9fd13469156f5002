"""Trainer: on every device, against PyTorch, through checkpoints, and when things go wrong."""

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import nn, optim
from pycl_cnn.training import Checkpoint, Trainer

ROWS, BATCH = 22, 8  # so that the last batch is smaller


def small_data(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    x = rng.standard_normal((rows, 2, 6, 6)) * 0.5
    x[np.arange(rows), 0, labels * 2] += 1  # a bright row says the class
    return x.astype(np.float32), labels


def small_model(dropout=0.0, batch_norm=False):
    # No bias before batch norm: its gradient is 0 but for rounding, which Adam and RMSprop scale up.
    parts = [nn.Conv2d(2, 4, 3, padding=1, bias=not batch_norm)]
    parts += [nn.BatchNorm2d(4)] if batch_norm else []
    parts += [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    parts += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*parts, nn.Linear(36, 3))


def small_trainer(device, optimizer=None, seed=3, **model):
    pc.manual_seed(seed)
    return Trainer(small_model(**model), nn.CrossEntropyLoss(), optimizer or optim.SGD(lr=0.1, momentum=0.9), device=device)


def fit(trainer, epochs=2, **options):
    return trainer.fit(small_data(), epochs, BATCH, progress=False, **options)


def test_it_learns_and_tells_how(device):
    trainer = small_trainer(device)
    history = fit(trainer, 10, validation=small_data(seed=1))
    assert history.loss[-1] < 0.5 * history.loss[0] and history.accuracy[-1] > 0.9
    assert len(history.step_loss) == 30 and history.epoch == list(range(1, 11)) and trainer.step == 30
    assert all(rate > 0 for rate in history.images_per_second)
    scores = trainer.evaluate(*small_data(seed=1), batch_size=5)
    np.testing.assert_allclose(scores.loss, history.validation_loss[-1], rtol=1e-5)
    assert scores.accuracy == history.validation_accuracy[-1]
    x, labels = small_data(seed=1)
    logits = trainer.predict(x, batch_size=7)
    np.testing.assert_allclose(logits, trainer.model.eval()(x, device=device), rtol=1e-4, atol=1e-5)
    assert (logits.argmax(1) == labels).mean() == scores.accuracy
    assert "epoch 10" in str(history)


@pytest.mark.parametrize("variant", [{}, {"dropout": 0.3}, {"batch_norm": True}], ids=["plain", "dropout", "batch_norm"])
def test_same_seed_same_losses_to_the_bit(device, variant):
    first, second = (fit(small_trainer(device, **variant)).step_loss for _ in range(2))
    assert first == second
    assert first != fit(small_trainer(device, seed=4, **variant)).step_loss


OPTIMIZERS = {
    "sgd": lambda: optim.SGD(lr=0.1, momentum=0.9, weight_decay=1e-2),
    "adamw": lambda: optim.AdamW(lr=0.01),
    "rmsprop": lambda: optim.RMSprop(lr=0.005, momentum=0.5, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("variant", [{"dropout": 0.3}, {"batch_norm": True}], ids=["dropout", "batch_norm"])
def test_resumed_from_a_checkpoint_nothing_changes_to_the_bit(device, tmp_path, name, variant):
    whole = fit(small_trainer(device, OPTIMIZERS[name](), **variant), 4)
    stopped = small_trainer(device, OPTIMIZERS[name](), **variant)
    fit(stopped, 2, callbacks=[Checkpoint(stopped, tmp_path / "run.safetensors")])
    resumed = small_trainer(device, OPTIMIZERS[name](), seed=99, **variant)
    resumed.resume(tmp_path / "run.safetensors")
    rest = fit(resumed, 2)
    assert (rest.epoch, resumed.step) == ([3, 4], 12)
    assert rest.step_loss == whole.step_loss[6:]
    assert fit(stopped, 2).step_loss == whole.step_loss[6:], "a second fit goes on where the first ended"


def test_a_smaller_last_batch_trains_like_the_others(device):
    """Batches of 8, 8 and 6 by hand, through programs of single steps."""
    x, labels = small_data()
    trainer = small_trainer(device)
    history = trainer.fit((x, labels), 1, BATCH, shuffle=False, progress=False)
    twin = small_trainer(device)
    losses = []
    for start in range(0, ROWS, BATCH):
        rows = slice(start, start + BATCH)
        losses += twin.fit((x[rows], labels[rows]), 1, BATCH, shuffle=False, progress=False).step_loss
    assert history.step_loss == losses
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, twin.model.state_dict()[name], err_msg=name)


TORCH_CASES = {
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 1e-2}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": ("Adam", {"lr": 0.01, "weight_decay": 1e-2}),
    "AdamW": ("AdamW", {"lr": 0.01}),
    "RMSprop": ("RMSprop", {"lr": 0.005, "momentum": 0.9}),
    "RMSprop centered": ("RMSprop", {"lr": 0.005, "centered": True}),
}


def torch_losses(model, name, arguments, batches, smoothing=0.0):
    """PyTorch's losses from the same weights on the same batches."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of its own")
    t = torch.nn
    twin = t.Sequential(t.Conv2d(2, 4, 3, padding=1, bias=False), t.BatchNorm2d(4), t.ReLU(), t.MaxPool2d(2), t.Flatten(), t.Linear(36, 3))
    twin.load_state_dict({key: torch.tensor(np.array(value)) for key, value in model.state_dict().items()}, strict=False)
    optimizer = getattr(torch.optim, name)(twin.parameters(), **arguments)
    loss_of = t.CrossEntropyLoss(label_smoothing=smoothing)
    losses = []
    for x, labels in batches:
        optimizer.zero_grad()
        loss = loss_of(twin(torch.tensor(x)), torch.tensor(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {key: value.numpy() for key, value in twin.state_dict().items()}


@pytest.mark.parametrize("case", TORCH_CASES)
def test_losses_are_those_of_pytorch(device, case):
    name, arguments = TORCH_CASES[case]
    pc.manual_seed(0)
    model = small_model(batch_norm=True)
    trainer = Trainer(model, nn.CrossEntropyLoss(label_smoothing=0.1), getattr(optim, name)(**arguments), device=device, seed=5)
    x, labels = small_data()
    batches = []
    for epoch in range(4):
        order = np.random.default_rng([5, epoch]).permutation(ROWS)
        batches += [(x[order[start : start + BATCH]], labels[order[start : start + BATCH]]) for start in range(0, ROWS, BATCH)]
    expected, weights = torch_losses(model, name, arguments, batches, 0.1)
    history = fit(trainer, 4)
    np.testing.assert_allclose(history.step_loss, expected, rtol=1e-3, atol=1e-5)
    for key, array in model.state_dict().items():
        np.testing.assert_allclose(array, weights[key], rtol=2e-3, atol=2e-4, err_msg=key)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_epoch(device):
    trainer = small_trainer(device)
    fit(trainer, 1)
    good, step = trainer.model.state_dict(), trainer.step
    x, labels = small_data()
    poisoned = x.copy()
    poisoned[-1] = np.nan
    with pytest.raises(pc.PyclError, match="loss is nan at step 6") as caught:
        trainer.fit((poisoned, labels), 1, BATCH, shuffle=False, progress=False)
    assert "weights of epoch 1 are kept" in str(caught.value) and isinstance(caught.value, ArithmeticError)
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, good[name])
    assert (trainer.step, trainer.epoch) == (step, 1)
    assert fit(trainer, 1).step_loss == fit(_after_one_epoch(device), 1).step_loss, "training goes on as if nothing had happened"


def _after_one_epoch(device):
    trainer = small_trainer(device)
    fit(trainer, 1)
    return trainer


def test_a_weight_that_is_no_number_stops_as_well():
    trainer = small_trainer("reference", optim.SGD(lr=1e38))
    initial = trainer.model.state_dict()
    x, labels = small_data(BATCH)
    with pytest.raises(pc.PyclError, match="no finite number"), np.errstate(all="ignore"):
        trainer.fit((x * 1e3, labels), 1, BATCH, progress=False)
    np.testing.assert_array_equal(trainer.model.state_dict()["0.weight"], initial["0.weight"])


def test_an_interrupt_keeps_the_weights_so_far(device):
    trainer = small_trainer(device)
    initial = trainer.model.state_dict()["0.weight"]
    x, labels = small_data()

    class Interrupted:
        dtype, shape, reads = x.dtype, x.shape, 0

        def __getitem__(self, rows):
            self.reads += 1
            if self.reads == 3:
                raise KeyboardInterrupt
            return x[rows]

    with pytest.raises(KeyboardInterrupt):
        trainer.fit((Interrupted(), labels), 1, BATCH, shuffle=False, progress=False)
    twin = small_trainer(device)
    twin.fit((x[:16], labels[:16]), 1, BATCH, shuffle=False, progress=False)
    np.testing.assert_array_equal(trainer.model.state_dict()["0.weight"], twin.model.state_dict()["0.weight"])
    assert not np.array_equal(trainer.model.state_dict()["0.weight"], initial) and trainer.epoch == 0


def test_inputs_of_any_real_dtype_and_from_disk(device, tmp_path):
    x, labels = small_data()
    x = np.round(x * 8)
    expected = small_trainer(device).fit((x, labels), 1, BATCH, progress=False).step_loss
    stored = np.memmap(tmp_path / "x", np.int16, "w+", shape=x.shape)
    stored[:] = x
    for same in (x.astype(np.float64), x.astype(np.int8), x.astype(np.float16), x.tolist(), stored):
        assert small_trainer(device).fit((same, labels.astype(np.uint8)), 1, BATCH, progress=False).step_loss == expected


def test_losses_of_floats_have_no_accuracy(device):
    pc.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2))
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(lr=0.05), device=device)
    x = np.random.default_rng(0).standard_normal((10, 3))
    target = x @ np.array([[1, 2], [3, 4], [5, 6]])
    history = trainer.fit((x, target), 40, 4, progress=False)
    assert history.accuracy[-1] is None and history.loss[-1] < 0.1 * history.loss[0]
    prediction = trainer.predict(x)
    np.testing.assert_allclose(trainer.evaluate(x, target, 4).loss, ((prediction - target) ** 2).mean(), rtol=1e-4)


def test_frozen_parameters_stay_and_ignored_labels_do_not_count(device):
    trainer = small_trainer(device)
    trainer.model[0].requires_grad_(False)
    frozen = trainer.model.state_dict()["0.weight"]
    x, labels = small_data()
    labels[::3] = -100
    history = trainer.fit((x, labels), 2, BATCH, validation=(x, labels), progress=False)
    np.testing.assert_array_equal(trainer.model.state_dict()["0.weight"], frozen)
    counted = labels >= 0
    expected = trainer.evaluate(x[counted], labels[counted])
    np.testing.assert_allclose(history.validation_loss[-1], expected.loss, rtol=1e-5)
    assert history.validation_accuracy[-1] == pytest.approx(expected.accuracy)


def test_weights_loaded_between_fits_are_used():
    trainer, fresh = small_trainer("reference"), small_trainer("reference", seed=8)
    fit(trainer, 1)
    trainer.model.load_state_dict(fresh.model.state_dict())
    x, labels = small_data()
    assert trainer.evaluate(x, labels) == fresh.evaluate(x, labels)
    first = trainer.fit((x, labels), 1, ROWS, progress=False).step_loss[0]
    assert first == pytest.approx(fresh.evaluate(x, labels).loss, rel=1e-6)


def test_callbacks_may_change_the_learning_rate():
    trainer = small_trainer("reference")
    records = []

    def halve(record):
        records.append(record)
        trainer.optimizer.lr /= 2

    fit(trainer, 3, callbacks=[halve])
    assert [record.lr for record in records] == [0.1, 0.05, 0.025]


X, LABELS = small_data()
BAD = {
    "lengths": ((X, LABELS[:-1]), {}, pc.ShapeError, "same length; received x=22, labels=21"),
    "empty": ((X[:0], LABELS[:0]), {}, pc.ShapeError, "at least one row"),
    "label": ((X, np.where(np.arange(ROWS) == 4, 7, LABELS)), {}, pc.ShapeError, "between 0 and 2.*label=7, at=4"),
    "negative label": ((X, LABELS - 1), {}, pc.ShapeError, "label=-1"),
    "validation label": ((X, LABELS), {"validation": (X, LABELS + 5)}, pc.ShapeError, "validation.*label="),
    "float labels": ((X, LABELS.astype(float)), {}, pc.ShapeError, "labels must be integers"),
    "boolean labels": ((X, LABELS > 1), {}, pc.DtypeError, "bool"),
    "text": ((X, LABELS.astype(str)), {}, pc.DtypeError, "real numbers"),
    "complex": ((X + 1j, LABELS), {}, pc.DtypeError, "complex"),
    "batch size": ((X, LABELS), {"batch_size": 0}, pc.ShapeError, "batch_size=0"),
    "batch size of no integer": ((X, LABELS), {"batch_size": 2.5}, pc.ShapeError, "batch_size=2.5"),
    "epochs": ((X, LABELS), {"epochs": -1}, pc.ShapeError, "epochs=-1"),
    "no pair": (X, {}, pc.ShapeError, "pair"),
    "shape": ((X[:, :1], LABELS), {}, pc.ShapeError, "channels"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_do_not_fit_are_refused_before_the_first_step(case):
    data, options, error, message = BAD[case]
    trainer = small_trainer("reference")
    with pytest.raises(error, match=message):
        trainer.fit(data, **{"batch_size": BATCH, "progress": False, **options})
    assert trainer.step == 0


def test_arguments_of_the_wrong_kind():
    with pytest.raises(TypeError, match="loss"):
        Trainer(small_model(), "cross_entropy", optim.SGD())
    with pytest.raises(pc.ShapeError, match="label=11, at=0"):
        small_trainer("reference").evaluate(X, LABELS + 9)


def test_checkpoints_that_do_not_fit(tmp_path):
    trainer = small_trainer("reference")
    fit(trainer, 1)
    path = tmp_path / "run.safetensors"
    trainer.save_checkpoint(path)
    with pytest.raises(pc.FormatError, match=r"written with SGD.*optimizer is Adam"):
        small_trainer("reference", optim.Adam()).resume(path)
    other = Trainer(nn.Sequential(nn.Linear(36, 3)), nn.CrossEntropyLoss(), optim.SGD(lr=0.1, momentum=0.9), device="reference")
    before = other.model.state_dict()
    with pytest.raises(pc.FormatError):
        other.resume(path)
    assert other.step == 0 and all(np.array_equal(other.model.state_dict()[name], array) for name, array in before.items())
    pc.save(trainer.model, tmp_path / "weights.safetensors")
    with pytest.raises(pc.FormatError, match="load_weights"):
        trainer.resume(tmp_path / "weights.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(pc.FormatError):
        trainer.resume(path)
    with pytest.raises(FileNotFoundError):
        trainer.resume(tmp_path / "nothing")


def test_a_checkpoint_is_also_a_file_of_weights(tmp_path):
    trainer = small_trainer("reference")
    fit(trainer, 1)
    trainer.save_checkpoint(tmp_path / "run.safetensors")
    model = small_model()
    pc.load_weights(model, tmp_path / "run.safetensors", strict=False)
    np.testing.assert_array_equal(model.state_dict()["0.weight"], trainer.model.state_dict()["0.weight"])


def test_the_progress_bar_says_what_happens(capsys):
    trainer = small_trainer("reference")
    trainer.fit(small_data(), 1, BATCH, validation=small_data())
    text = capsys.readouterr().err
    assert "epoch 1/1" in text and "loss" in text and "images/s" in text and "held out" in text
