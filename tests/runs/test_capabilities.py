"""Which precisions go with which device, told for devices that are not here too."""

import platform

import pytest

from ltm.runs import capabilities
from ltm.runs.capabilities import Abilities, trouble

PLAIN = frozenset({"sse2", "avx2"})
ZEN = PLAIN | {"avx512_bf16"}
V100, T4, H100 = (Abilities("cuda", name, cuda_capability=c) for name, c in
                  (("V100", (7, 0)), ("T4", (7, 5)), ("H100", (9, 0))))  # fmt: skip
P100 = Abilities("cuda", "P100", cuda_capability=(6, 0))
MI300 = Abilities("cuda", "MI300X")


@pytest.mark.parametrize(
    ("dtype", "able", "expected"),
    [
        ("tf32", Abilities("cpu", cpu_flags=ZEN), (True, "float32")),
        ("float16", Abilities("cpu", cpu_flags=PLAIN), (False, "float32")),
        ("float16", Abilities("cpu", cpu_flags=ZEN), (False, "bfloat16")),
        ("bfloat16", Abilities("cpu", cpu_flags=PLAIN), (False, "float32")),
        ("bfloat16", Abilities("cpu", cpu_flags=ZEN), None),
        ("bfloat16", Abilities("cpu", cpu_flags=None), None),
        ("bfloat16", V100, (True, "float16")),
        ("bfloat16", P100, (True, "float32")),
        ("tf32", T4, (True, "float32")),
        ("float16", V100, None),
        ("tf32", MI300, (True, "bfloat16")),
        ("bfloat16", MI300, None),
        ("tf32", Abilities("mps"), (True, "float32")),
        ("bfloat16", Abilities("mps", mps_has_bfloat16=False), (True, "float16")),
        ("bfloat16", Abilities("mps"), None),
        *((dtype, H100, None) for dtype in ("auto", "float32", "tf32", "bfloat16", "float16")),
        *((dtype, able, None) for dtype in ("auto", "float32") for able in (V100, Abilities("cpu"), Abilities("mps"))),
    ],
)
def test_trouble_and_the_nearest_precision(dtype, able, expected):
    found = trouble(dtype, able)
    assert (found and (found.stops, found.nearest)) == expected
    if found:
        assert trouble(found.nearest, able) is None, "the nearest precision is no better"


def test_a_linux_machine_without_a_sign_of_a_card_needs_no_pytorch(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert not capabilities.may_have_accelerator(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert capabilities.may_have_accelerator(tmp_path)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert capabilities.may_have_accelerator(tmp_path / "empty")


def test_flags_are_read_as_x86_and_arm_write_them(tmp_path):
    (tmp_path / "proc").mkdir()
    info = tmp_path / "proc" / "cpuinfo"
    assert capabilities.cpu_flags(tmp_path) is None
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\nflags\t\t: other\n")
    assert capabilities.cpu_flags(tmp_path) == {"fpu", "avx2", "amx_bf16"}
    info.write_text("processor: 0\nFeatures\t: fp asimd bf16\n")
    assert "bf16" in (capabilities.cpu_flags(tmp_path) or ())
    info.write_text("processor: 0\n")
    assert capabilities.cpu_flags(tmp_path) is None


def test_this_machine_can_say_what_it_can_do():
    able = capabilities.abilities("cpu")
    assert able.device == "cpu"
    assert trouble("float32", able) is None
