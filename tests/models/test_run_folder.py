"""The folder of a run."""

import json

import pytest

from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.errors import InputError
from tests.support.runs import save_run


@pytest.mark.parametrize(
    ("name", "section"), [("config.json", "data"), ("preprocessing.json", "settings")]
)
def test_a_run_with_contradicting_settings_is_refused(small_config, tmp_path, name, section):
    run = RunFolder(save_run(tmp_path / "run", small_config))
    config, preprocessing = run.load()
    assert config.data.preprocessing == preprocessing.settings
    content = json.loads((run.path / name).read_text())
    content[section]["spacing_mm"] *= 2
    (run.path / name).write_text(json.dumps(content))
    message = r"settings are not those of config.json, so one of the two was changed"
    with pytest.raises(InputError, match=message):
        run.load()


def test_a_setting_that_preprocessing_json_lacks_gets_no_default(small_config, tmp_path):
    run = RunFolder(save_run(tmp_path / "run", small_config))
    content = json.loads(run.preprocessing_file.read_text())
    del content["settings"]["percentiles"]
    run.preprocessing_file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"preprocessing.json.settings.percentiles is missing"):
        run.load()
