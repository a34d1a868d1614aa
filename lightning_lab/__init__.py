"""A laboratory for neural networks, built on PyTorch Lightning. Importing it costs nothing: see the subpackages."""

__version__ = "0.1.0"
