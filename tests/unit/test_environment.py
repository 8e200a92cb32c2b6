"""The environment of helpers: what finds programs and libraries passes, whatever else does not."""

from __future__ import annotations

from workers.environment import without_secrets


def test_only_what_a_process_needs_to_start_passes() -> None:
    environ = {
        "PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "PYTHONPATH": "/p", "OMP_NUM_THREADS": "4",
        "OPENAI_API_KEY": "k", "PLANTED": "k", "TTC_DATABASE_URL": "u", "AWS_PROFILE": "a", "HF_TOKEN": "t",
    }  # fmt: skip
    assert without_secrets(environ, OMP_NUM_THREADS="1") == {
        "PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "PYTHONPATH": "/p", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
