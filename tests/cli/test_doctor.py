"""`embedkit doctor`: what it tells is true here."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

import torch
from typer.testing import CliRunner

from cli.main import app
from embedkit.inference.torch_runtime.peak import has_rate
from embedkit.model.config import EncoderConfig
from embedkit.native.dispatch import describe_level, is_generic
from embedkit.native.encoder import why_not


def test_the_doctor_tells_this_machine() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["python"] == platform.python_version()
    assert content["torch"] == version("torch")
    assert content["torch_threads"] == torch.get_num_threads()
    assert content["cuda"] == [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    assert "fp32" in content["fast_precisions"]
    assert set(content["gflops"]) == set(filter(has_rate, content["fast_precisions"]))
    assert content["gflops"]["fp32"] > 0
    has_kernels = why_not(EncoderConfig(), "fp32") is None
    assert content["backends"]["fp32"] == ("native" if has_kernels and not is_generic() else "torch")
    assert content["kernels"] == (describe_level() if has_kernels else why_not(EncoderConfig(), "fp32"))
    assert content["disk_free_bytes"] > 0
