"""The nets: plain `torch.nn.Module` classes that import torch and nothing else.

A net maps a batch to logits or values. It knows no loss, optimiser or data set: `tasks` injects it by `class_path`.
Each can be built without arguments, says in `input_shape` and `num_classes` what goes in and out, and refuses
anything else in words.
"""

from lightning_lab.nets.conv import ConvNet
from lightning_lab.nets.googlenet import GoogLeNet
from lightning_lab.nets.lenet import LeNet5
from lightning_lab.nets.mlp import MLP
from lightning_lab.nets.nin import NiN
from lightning_lab.nets.resnet import ResNet
from lightning_lab.nets.speednet import SpeedNet
from lightning_lab.nets.vgg import VGG

__all__ = ["MLP", "VGG", "ConvNet", "GoogLeNet", "LeNet5", "NiN", "ResNet", "SpeedNet"]
