"""What is wrong is told first, in one sentence with the remedy, with exit code 2, and leaves no run behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import QUICK, Lab

FOLDER = "fit --data ImageFolder --data.root tree --model.net.in_channels 3 --model.net.image_size 32"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit --model.net.dropuot 0.3", "Unknown key 'model.net.dropuot'. Did you mean 'model.net.dropout'?"),
        ("fit --data.batch_siz 3", "Unknown key 'data.batch_siz'. Did you mean 'data.batch_size'?"),
        ("fit --trainer.max_epoch 3", "Unknown key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"),
        ("fit --early_stopping.patienc 3", "Unknown key 'early_stopping.patienc'. Did you mean 'early_stopping.patience'?"),
        ("fit --model.net LeNet", "Unknown net 'LeNet'. Did you mean 'LeNet5'? Known: ConvNet, GoogLeNet, LeNet5, MLP, NiN, ResNet, SpeedNet, VGG."),
        ("fit --data Digit", "Unknown data 'Digit'. Did you mean 'Digits'?"),
        ("fit --model.optimizer Adm", "Unknown optimizer 'Adm'. Did you mean 'Adam'?"),
        ("fit --lr_schedule.scheduler StepL", "Unknown scheduler 'StepL'. Did you mean 'StepLR'?"),
        (
            "fit --lr_schedule.scheduler LinearDecay --lr_schedule.scheduler.warmup 2",
            "Unknown key 'lr_schedule.scheduler.warmup'. Did you mean 'lr_schedule.scheduler.total'? "
            "Known: lr_schedule.scheduler.final_frac, lr_schedule.scheduler.total.",
        ),
        ("fit --model.optimizer.lrr 1", "Unknown key 'model.optimizer.lrr'. Did you mean 'model.optimizer.lr'?"),
        (
            "fit --trainer.precision bf17",
            "`trainer.precision` must be one of 'transformer-engine', 'transformer-engine-float16', '16-true', '16-mixed', "
            "'bf16-true', 'bf16-mixed', '32-true', '64-true', '64', '32', '16', 'bf16', got bf17.",
        ),
        ("fit --model.net.dropout 1.5", "`dropout` must be in [0, 1), got 1.5."),
        ("fit --model.net.dropout high", "`model.net.dropout` must be a number, got high."),
        ("fit --model.optimizer.lr fast", "`model.optimizer.lr` must be a number, got fast."),
        ("fit --model.net.hidden 20", "`model.net.hidden` must be a list such as [20, 10], got 20."),
        ("fit --model.net.channels [6]", "`model.net.channels` must be a tuple with 2 elements, got [6]."),
        ("fit --lr_schedule.interval week", "`lr_schedule.interval` must be one of 'epoch', 'step', got week."),
        ("fit --trainer.max_epochs four", "`trainer.max_epochs` must be a whole number, got four."),
        ("fit --seed_everything true", "`seed_everything` must be a whole number, got True."),
        ("fit --config nothing.yaml", "There is no configuration file nothing.yaml."),
        ("fit --config digits/lenet", "Unknown configuration 'digits/lenet'. Did you mean 'digits/lenet5'?"),
        ("fit --config", "--config needs a file or a name"),
        ("fit --config tab.yaml", "tab.yaml, line 2: there is a tab. YAML is indented with spaces; replace it."),
        ("fit --config broken.yaml", "broken.yaml, line 2 is not valid YAML:"),
        ("fit --config list.yaml", "list.yaml holds a list; a configuration is a mapping of keys to values."),
        ("fit --config binary.yaml", "binary.yaml is not a text file"),
        ("fit --config typo.yaml", "Unknown key 'modle'. Did you mean 'model'?"),
        ("fit --data.path nothing.mat", "There is no file nothing.mat, neither here nor in $LIGHTNING_LAB_DATA."),
        ("fit --data.batch_size 0", "`batch_size` must be at least 1, got 0."),
        ("fit --data.val_frac 1.0", "`val_frac` must be above 0 and below 1, got 1.0."),
        ("fit --early_stopping.monitor val/accuracy", "`early_stopping.monitor`: Unknown metric 'val/accuracy'."),
        ("fit --checkpoint.monitor val/los", "`checkpoint.monitor`: Unknown metric 'val/los'. Did you mean 'val/loss'?"),
        ("fit --model.net MLP", "MLP was built for 256 values per sample, got 1 x 28 x 28 = 784."),
        ("fit --gradient_clipping.max_norm 1 --trainer.gradient_clip_val 1", "both handle the gradient"),
        ("fit --ckpt_path nothing.ckpt", "There is no checkpoint nothing.ckpt."),
        ("fit --ckpt_path s3://bucket/last.ckpt", "`ckpt_path` must be best, last or a local file"),
        ("fit --ckpt_path tab.yaml", "The checkpoint tab.yaml cannot be read:"),
        ("fit --data ImageFolder --data.root empty", "There is no folder empty/train."),
        ("fit --config cifar10/lenet5 --data.root empty", "CIFAR-10 is not there, or is incomplete or damaged in empty"),
        (FOLDER, "The data have 2 classes and the net gives 10. Set it with --model.net.num_classes 2."),
        ("fit --data ImageFolder", "Missing: data.root. lightning_lab.data.ImageFolder cannot do without."),
        ("test", "test needs the configuration of a run: --config RUN/config.yaml."),
        ("test --config digits/lenet5", "has no best checkpoint. Give the run's own config.yaml."),
    ],
)  # fmt: skip
def test_bad_input(command: str, message: str, lab: Lab, image_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "tab.yaml").write_text("model:\n\tnet: 3\n")
    (tmp_path / "broken.yaml").write_text("a: [1,\nb: }\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "typo.yaml").write_text("modle: 3\n")
    answer = lab(*command.split())
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert "usage:" not in answer.err
    assert not (tmp_path / "logs").exists()


def test_a_file_that_is_no_image(lab: Lab, image_tree: Path) -> None:
    (image_tree / "train" / "dark" / "note.jpg").write_text("no image")
    answer = lab(*FOLDER.split(), "--model.net.num_classes", "2")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("error: tree/train/dark/note.jpg cannot be read as an image")


def test_a_class_folder_missing_in_test(lab: Lab, image_tree: Path) -> None:
    shutil.rmtree(image_tree / "test" / "bright")
    answer = lab(*FOLDER.split(), "--model.net.num_classes", "2")
    assert answer.code == 2
    assert "The classes of tree/test are not those of tree/train: missing: bright" in answer.err


def test_a_checkpoint_of_another_net(lab: Lab) -> None:
    assert lab("fit", *QUICK, "--config=digits/mlp", "--run.name=a", "--lr_schedule=null").code == 0
    answer = lab("test", "--config=digits/lenet5", "--ckpt_path=logs/mlp/a/checkpoints/best.ckpt")
    assert answer.code == 2
    assert "best.ckpt is of another net: 10 tensors are missing there (net.classifier.1.bias)" in answer.err
