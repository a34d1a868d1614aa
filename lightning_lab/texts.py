"""The words of `--help` that do not come from docstrings. Free of torch."""

from __future__ import annotations

#: What `--ckpt_path` means, by verb.
CKPT_PATH: dict[str, str] = {
    "fit": "Start with the weights of this checkpoint (a path). A run continues from its own by itself.",
    "validate": "Which weights: best (default), last, or a path.",
    "test": "Which weights: best (default), last, or a path.",
    "predict": "Which weights: best (default), last, or a path.",
}
#: What stands below every description.
MORE = """

The keys of a class:  --model.help Classification   --data.help CIFAR10   --lr_schedule.help
                      --model.net.help LeNet5
Every key with its value, as a configuration to start from:  --print_config"""
#: The head of each verb's --help.
DESCRIPTIONS: dict[str, str] = {
    "fit": """Train a net, and keep a record of the run.

examples:
  lightning-lab fit                                              LeNet-5 on the bundled digits, in seconds
  lightning-lab fit --config cifar10/vgg --data.root DIR         a shipped configuration; `lightning-lab configs`
  lightning-lab fit --model.net.dropout 0.3 --seed_everything 1  any setting, any seed
  lightning-lab fit --model.optimizer Adam --model.optimizer.lr 0.001
  lightning-lab fit --early_stopping.patience 5 --lr_schedule null
  lightning-lab fit --then test                                  fit, then test the best checkpoint
  lightning-lab fit --run.name first                             the same command again continues the run""",
    "validate": """Measure a checkpoint on the validation data.

example:
  lightning-lab validate --config RUN/config.yaml --ckpt_path best""",
    "test": """Measure a checkpoint on the test data; confusion matrix and mistakes as pictures.

example:
  lightning-lab test --config RUN/config.yaml --ckpt_path best""",
    "predict": """Write predictions.csv for a folder of images.

example:
  lightning-lab predict --config RUN/config.yaml --ckpt_path best --data.predict_folder FOLDER""",
}
