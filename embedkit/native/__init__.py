"""The forward pass in C: fp32, bf16 and int8 on processors with AVX-512, on packed tokens and without torch."""

from embedkit.native.encoder import NativeEncoder, why_not
from embedkit.native.library import NativePrecision

__all__ = ["NativeEncoder", "NativePrecision", "why_not"]
