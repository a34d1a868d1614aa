"""The verb export: a run's net, as somebody without this project would use it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from support import QUICK, Lab

from lightning_lab import __version__
from lightning_lab.data import Digits
from lightning_lab.nets import MLP

RUN = Path("logs/mlp/one")
FIT = ("fit", "--config=digits/mlp", *QUICK, "--run.name=one", "--lr_schedule=null")
WEIGHTS = ("export", "mlp/one", "--format=safetensors")
GRAPH = ("export", "mlp/one", "--format=torch_export")


def summary() -> dict[str, Any]:
    return dict(json.loads((RUN / "summary.json").read_text()))


def validation(**settings: Any) -> Any:
    data = Digits(**settings)
    data.setup("fit")
    return data.val_dataloader()


def test_the_exported_net_has_the_validation_accuracy_of_the_run(lab: Lab) -> None:
    assert lab(*FIT).code == 0
    answer = lab("export", "mlp/one", "--format=onnx")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"{RUN}/best.onnx: MLP from {RUN}/checkpoints/best.ckpt, ")
    assert "  input: x, float32 (batch, 1, 16, 16), normalised\n" in answer.out
    assert "  compared with torch on 8 batches of 1 to 32: outputs differ by at most " in answer.out
    session = onnxruntime.InferenceSession(RUN / "best.onnx", providers=["CPUExecutionProvider"])
    assert [(put.name, put.shape) for put in session.get_outputs()] == [("logits", ["batch", 10])]
    right = 0
    for batch in (loader := validation()):
        (logits,) = session.run(None, {"x": batch.x.numpy()})
        right += int((logits.argmax(1) == batch.y.numpy()).sum())
    row = next(row for row in _rows() if row["epoch"] == summary()["best"]["epoch"])
    assert right / len(loader.examples) == pytest.approx(row["val/acc"], abs=1e-6)
    metadata = session.get_modelmeta().custom_metadata_map
    assert {key: metadata[key] for key in metadata.keys() - {"metric"}} == {
        "lightning_lab": __version__,
        "config": "mlp",
        "run": "one",
        "checkpoint": "best.ckpt",
        "step": str(4 * summary()["best"]["epoch"]),
        "net": "MLP",
        "input": "float32 (batch, 1, 16, 16), normalised",
        "input_shape": "[1, 16, 16]",
        "class_names": '["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]',
        "normalisation": '{"kind": "dataset", "mean": [0.3055], "std": [0.3187]}',
    }
    assert json.loads(metadata["metric"]) == summary()["best"]


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]


def test_with_preprocessing_the_graph_takes_bytes(lab: Lab) -> None:
    lab(*FIT, "--data.normalise=image")
    answer = lab(*GRAPH, "--with_preprocessing", "--output=deep/net.pt2")
    assert answer.code == 0, answer.err
    assert "  input: images, uint8 (batch, 16, 16, 1), pixels\n" in answer.out
    extra = {"metadata.json": ""}
    loaded = torch.export.load("deep/net.pt2", extra_files=extra).module()
    metadata = json.loads(extra["metadata.json"])
    assert json.loads(metadata["normalisation"]) == {"kind": "in the graph"}
    assert (metadata["input"], metadata["input_shape"]) == ("uint8 (batch, 16, 16, 1), pixels", "[16, 16, 1]")
    right = 0
    for batch in (loader := validation(normalise="image")):
        images = loader.examples.x[batch.indices].permute(0, 2, 3, 1).contiguous()
        right += int((loaded(images).argmax(1) == batch.y).sum())
    row = next(row for row in _rows() if row["epoch"] == summary()["best"]["epoch"])
    assert right / len(loader.examples) == pytest.approx(row["val/acc"], abs=1e-6)


def test_weights_fit_the_net_built_by_hand_and_last_is_not_best(lab: Lab) -> None:
    fit = lab(*FIT, "--checkpoint.monitor=train/loss", "--checkpoint.mode=max")
    assert fit.code == 0, fit.err
    assert summary()["best"]["epoch"] == 1
    assert lab(*WEIGHTS).code == 0
    assert lab(*WEIGHTS, "--which=last").code == 0
    by_path = lab("export", f"{RUN}/checkpoints/last.ckpt", "--format=safetensors", "--output=again.safetensors")
    assert by_path.code == 0, by_path.err
    files = {name: load_file(RUN / f"{name}.safetensors") for name in ("best", "last")}
    again = load_file("again.safetensors")
    assert all(torch.equal(again[key], value) for key, value in files["last"].items())
    for name, weights in files.items():
        net = MLP(hidden=(128, 64))
        net.load_state_dict(weights)
        saved = torch.load(RUN / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(weights[key], saved[f"net.{key}"]) for key in weights)
        with safe_open(RUN / f"{name}.safetensors", "pt") as file:
            metric = json.loads(file.metadata()["metric"])
        epoch = {"best": 1, "last": 2}[name]
        assert metric == {"metric": "train/loss", "value": _rows()[epoch - 1]["train/loss"], "epoch": epoch}
    assert not all(torch.equal(files["best"][key], files["last"][key]) for key in files["best"])


def test_a_checkpoint_within_an_epoch_has_no_metric(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP", "on_train_batch_end:6")  # of four an epoch
    assert lab(*FIT, "--trainer.callbacks+=support.Stop").code == 143
    assert len(_rows()) == 1
    assert lab(*WEIGHTS, "--which=last").code == 0
    with safe_open(RUN / "last.safetensors", "pt") as file:
        assert (file.metadata()["metric"], file.metadata()["step"]) == ("null", "6")


def test_a_function_has_values_and_no_classes(lab: Lab) -> None:
    lab("fit", "--config=regression/mlp", *QUICK, "--run.name=one", "--lr_schedule=null")
    assert lab("export", str(RUN), "--format=torch_export").code == 0
    extra = {"metadata.json": ""}
    loaded = torch.export.load(RUN / "best.pt2", extra_files=extra).module()
    metadata = json.loads(extra["metadata.json"])
    assert metadata["class_names"] == "null"
    assert json.loads(metadata["normalisation"])["mean"] == [8.5]
    assert loaded(torch.zeros(3, 1)).shape == (3, 1)
    answer = lab("export", str(RUN), "--format=torch_export", "--with_preprocessing", "--overwrite")
    assert answer.code == 2
    assert (
        "`with_preprocessing` needs images whose normalisation is known, and Regression does not give any" in answer.err
    )


def test_a_file_that_is_there_is_kept(lab: Lab) -> None:
    lab(*FIT)
    assert lab(*WEIGHTS).code == 0
    file = RUN / "best.safetensors"
    weights = load_file(file)
    file.write_bytes(b"mine")
    answer = lab(*WEIGHTS)
    assert answer.code == 2
    assert f"{file} is there already. Write over it with --overwrite, or name another with --output." in answer.err
    assert file.read_bytes() == b"mine"
    assert lab(*WEIGHTS, "--overwrite").code == 0
    assert load_file(file).keys() == weights.keys()
    assert [path.name for path in RUN.iterdir() if "tmp" in path.name] == []


def test_a_run_of_another_machine(lab: Lab) -> None:
    lab(*FIT)
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    config["trainer"] |= {"accelerator": "gpu", "devices": 4, "num_nodes": 2, "strategy": "ddp"}
    config["trainer"] |= {"precision": "bf16-mixed"}
    (RUN / "config.yaml").write_text(yaml.safe_dump(config))
    answer = lab(*WEIGHTS)
    assert answer.code == 0, answer.err


def test_images_that_have_moved(lab: Lab, image_tree: Path) -> None:
    command = (
        "fit", "--data=ImageFolder", "--data.root=tree", "--model.net.num_classes=2", "--model.net.in_channels=3",
        "--model.net.image_size=32", "--data.image_size=32", *QUICK, "--lr_schedule=null", "--run.name=one",
    )  # fmt: skip
    assert lab(*command).code == 0
    image_tree.rename("moved")
    export = ("export", "lenet5/one", "--format=safetensors")
    answer = lab(*export)
    assert answer.code == 2
    assert "There is no folder tree/train." in answer.err
    answer = lab(*export, "--data.root=moved")
    assert answer.code == 0, answer.err
    with safe_open("logs/lenet5/one/best.safetensors", "pt") as file:
        assert file.metadata()["class_names"] == '["bright", "dark"]'


@pytest.mark.parametrize(
    ("name", "missing", "words"),
    [
        ("onnx", ("onnx", "onnxruntime"), "onnx, onnxruntime, which are"),
        ("onnx", ("onnxscript",), "onnxscript, which is"),
        ("safetensors", ("safetensors",), "safetensors, which is"),
    ],
)
def test_a_missing_package_names_the_extra(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str, missing: tuple[str, ...], words: str
) -> None:
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  # as if it were not there
    answer = lab("export", "mlp/one", f"--format={name}")
    told = f'error: `format` {name} needs {words} not installed: pip install "lightning-lab[export]"\n'
    assert (answer.code, answer.err) == (2, told)


OWN = """import torch
from lightning.pytorch import LightningDataModule, LightningModule
class Own(LightningModule):
    def __init__(self, named: bool = False):
        super().__init__()
        self.layer = torch.nn.Linear(256, 10)
        if named:
            self.net, self.layer = self.layer, None
    def training_step(self, batch, batch_idx):
        return (self.layer or self.net)(batch[0].flatten(1)).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-9)
class Numbers(LightningDataModule):
    def __init__(self, seed: int = 0):
        super().__init__()
    def train_dataloader(self):
        return torch.utils.data.DataLoader([(torch.zeros(256), 0)] * 4, batch_size=2)
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "Own has no `net` that could be exported, as the tasks here have."),
        (("--model.named=true",), "Neither Numbers nor Linear says its `input_shape`: give one of them the attribute"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, on plain loaders without workers and validation
def test_modules_that_say_too_little(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], message: str
) -> None:
    (tmp_path / "own_export.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    fit = lab("fit", "--model=own_export.Own", "--data=own_export.Numbers", *settings, "--checkpoint.monitor=train/loss",
              *QUICK[:1], "--run.name=one", "--lr_schedule=null", "--trainer.accelerator=cpu",
              "--trainer.limit_val_batches=0", "--gradient_clipping=null")  # fmt: skip
    last = Path("logs/lenet5/one/checkpoints/last.ckpt")
    assert last.exists(), fit.err
    answer = lab("export", str(last), "--format=torch_export")
    assert answer.code == 2
    assert message in answer.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("export zzz --format onnx", "Unknown run 'zzz'. Known: mlp/one."),
        ("export mlp/one", "the following arguments are required: --format. See lightning-lab export --help."),
        ("export mlp/one --format tflite", "argument --format: invalid choice: 'tflite'"),
        ("export mlp/one --format onnx --output net.pt2", "`output` must end in .onnx for --format onnx, got net.pt2."),
        ("export mlp/one --format safetensors --with_preprocessing", "`with_preprocessing` needs a graph"),
        ("export nothing.ckpt --format onnx", "There is no checkpoint nothing.ckpt."),
        ("export stray.ckpt --format onnx", "stray.ckpt is not a run's checkpoint: there is no "),
        ("export logs/mlp/one/checkpoints/best.ckpt --which last --format onnx", "`which` last goes with a run, and logs/mlp/one/checkpoints/best.ckpt is a checkpoint already."),
        ("export mlp/one --format onnx --model.net.hidden [5]", "is of another net"),
        ("export mlp/one --format onnx --model.net.hiden [5]", "Unknown key 'model.net.hiden'. Did you mean 'model.net.hidden'?"),
        ("export mlp/one --format onnx --run.logs elsewhere", "Unknown run 'mlp/one'. Known: none."),
        ("export mlp/one --format safetensors --output stray.ckpt/net.safetensors", "net.safetensors could not be written"),
    ],
)  # fmt: skip
def test_bad_input(command: str, message: str, lab: Lab) -> None:
    lab(*FIT, "--trainer.max_epochs=1")
    Path("stray.ckpt").write_bytes(b"")
    before = set(Path().rglob("*"))
    answer = lab(*command.split())
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert set(Path().rglob("*")) == before


def test_a_changed_bit_is_found(lab: Lab) -> None:
    lab(*FIT, "--trainer.max_epochs=1")
    best = RUN / "checkpoints" / "best.ckpt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    answer = lab(*WEIGHTS)
    assert answer.code == 2
    assert f"The checkpoint {best} cannot be read: it is damaged" in answer.err


def test_a_run_without_a_best_checkpoint(lab: Lab) -> None:
    lab(*FIT, "--trainer.max_epochs=1")
    (RUN / "checkpoints" / "best.ckpt").unlink()
    assert f"The run {RUN} has no best checkpoint. Try --which last." in lab(*WEIGHTS).err
    assert lab(*WEIGHTS, "--which=last").code == 0
    (RUN / "checkpoints" / "last.ckpt").unlink()
    assert f"The run {RUN} has no last checkpoint. Try --which best." in lab(*WEIGHTS, "--which=last").err


def test_help_teaches_with_examples(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lab("export", "--help")
    assert stop.value.code == 0
    out = capfd.readouterr().out
    assert "lightning-lab export lenet5/first --format onnx" in out
    assert 'pip install "lightning-lab[export]"' in out
