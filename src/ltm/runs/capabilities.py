"""What devices can compute in, told before anything is trained; PyTorch is asked only where there is a card to ask of.

`ltm check` answers in a fraction of a second because a machine without any sign of an accelerator needs no PyTorch to
say that it has none.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

_CARD_SIGNS = ("dev/nvidiactl", "dev/nvmap", "dev/kfd", "dev/dxg")  # NVIDIA, Jetson, AMD, Windows' Linux
FAST_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16", "svebf16"})  # x86, then Arm
_AMPERE = (8, 0)  # the first cards that multiply bfloat16 and TF32


@dataclass(frozen=True)
class Abilities:
    """What decides in which precisions a device computes, and how fast."""

    device: str  # cpu, cuda or mps
    name: str = ""
    cpu_flags: frozenset[str] | None = None  # None = the system does not say
    cuda_capability: tuple[int, int] | None = None  # None = no NVIDIA card (AMD's have all precisions but TF32)
    mps_has_bfloat16: bool = True


@dataclass(frozen=True)
class Trouble:
    """Why a precision does not go with a device, and the nearest one that does."""

    stops: bool  # False = it works, but is pointless
    reason: str
    nearest: str


def trouble(dtype: str, able: Abilities) -> Trouble | None:
    """Return what is wrong with a precision on a device; None = nothing.

    >>> trouble("tf32", Abilities("cpu")).nearest
    'float32'
    """
    if dtype in ("auto", "float32"):
        return None
    if able.device == "cpu":
        return _on_cpu(dtype, able.cpu_flags)
    if able.device == "mps":
        if dtype == "tf32":
            return Trouble(True, "a format of NVIDIA cards; Apple's GPU has none", "float32")
        if dtype == "bfloat16" and not able.mps_has_bfloat16:
            return Trouble(True, "on Apple's GPU from macOS 14 on", "float16")
        return None
    name = able.name or "this card"
    if able.cuda_capability is None:
        return Trouble(True, f"a format of NVIDIA cards; {name} has none", "bfloat16") if dtype == "tf32" else None
    if able.cuda_capability < _AMPERE and dtype in ("bfloat16", "tf32"):
        major, minor = able.cuda_capability
        why = f"in cards from Ampere (compute capability 8.0) on; {name} has {major}.{minor}"
        return Trouble(True, why, "float16" if dtype == "bfloat16" and able.cuda_capability >= (7, 0) else "float32")
    return None


def _on_cpu(dtype: str, flags: frozenset[str] | None) -> Trouble | None:
    if dtype == "tf32":
        return Trouble(True, "a format of NVIDIA cards; a CPU has none", "float32")
    fast = flags is not None and bool(flags & FAST_BFLOAT16)
    if dtype == "float16":
        return Trouble(False, "slow on a CPU, and needs loss scaling", "bfloat16" if fast else "float32")
    if dtype == "bfloat16" and flags is not None and not fast:
        return Trouble(False, "slower than float32 on this CPU: it has neither AMX nor AVX512-BF16", "float32")
    return None


def may_have_accelerator(root: Path = Path("/")) -> bool:
    """Return whether PyTorch has to be asked for a GPU; False = there is surely none."""
    return platform.system() != "Linux" or any((root / sign).exists() for sign in _CARD_SIGNS)


def abilities(device: str) -> Abilities:
    """Return what a device of this machine can do; it has to be there."""
    if device == "cpu":
        return Abilities("cpu", cpu_flags=cpu_flags())
    import torch

    if device == "mps":
        return Abilities("mps", "Apple's GPU", mps_has_bfloat16=torch.backends.mps.is_macos_or_newer(14, 0))
    name = torch.cuda.get_device_name(0)
    return Abilities("cuda", name, cuda_capability=None if torch.version.hip else torch.cuda.get_device_capability(0))


def cpu_flags(root: Path = Path("/")) -> frozenset[str] | None:
    """Return the instruction sets of the processor as Linux names them; None where it does not say."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), None)
    return frozenset(line.partition(":")[2].split()) if line else None


def has_compiler() -> bool:
    """Return whether torch.compile finds a C++ compiler."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def compiler_install_line() -> str:
    """Return the command that installs a C++ compiler here."""
    if platform.system() == "Darwin":
        return "xcode-select --install"
    commands = {"apt-get": "sudo apt-get install g++", "dnf": "sudo dnf install gcc-c++", "apk": "apk add g++",
                "pacman": "sudo pacman -S gcc", "zypper": "sudo zypper install gcc-c++"}  # fmt: skip
    return next((line for tool, line in commands.items() if shutil.which(tool)), "install g++ or clang++")
