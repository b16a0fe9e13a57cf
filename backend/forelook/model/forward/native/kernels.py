"""The functions of the compiled kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kernels:
    """The compiled functions; see ``step.c``. Each returns 0, or 1 where there is no memory.

    Attributes:
        step: of the addresses of a ``Model`` and a ``Step``.
        product: of a ``Matrix``, activations, their number of rows, the result, and the number of threads.
    """

    step: Callable[[int, int], int]
    product: Callable[[int, int, int, int, int], int]

    @classmethod
    def of(cls, library: ctypes.CDLL) -> Kernels:
        """The functions of a loaded library.

        Raises:
            AttributeError: it does not have them.
        """
        step, product = library.forelook_step, library.forelook_product
        step.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        product.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
        step.restype = product.restype = ctypes.c_int
        return cls(step, product)
