"""`msseg train`: what it says before the training."""

import pytest

from msseg_jax.cli import train
from msseg_jax.cli.main import main


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config=msseg2", "--config.data.phantom_patients=2"], ""),  # the default is not used
        (["--config=demo"], ""),
        (["--config=msseg2", "--config.data.root=mine"], ""),
        (
            ["--config=demo", "--config.data.root=data/msseg2"],
            "config.data.root=data/msseg2 is not used, because config.data.phantom_patients is 16. "
            "Set the latter to 0 to train on your own data.\n",
        ),
    ],
)
def test_a_folder_in_a_flag_that_is_not_used_is_named(flags, said, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(train, "run_experiment", lambda config, workdir: None)
    assert main(["train", *flags, f"--workdir={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out == said
