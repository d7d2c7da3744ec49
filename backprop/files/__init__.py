"""Files on a disk: put in place whole or not at all, and of one kind for everything that is saved."""

from backprop.files.container import FileFormatError

__all__ = ["FileFormatError"]
