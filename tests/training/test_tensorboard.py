"""Event files for TensorBoard, read as TensorBoard reads them."""

import io
import json
import math
import struct
import threading

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from msseg_jax.models.run_folder import RunFolder
from msseg_jax.report.snapshot import Snapshot
from msseg_jax.training.tensorboard import EventFile
from tests.support.runs import kill_at, train_run

LINE = {
    "step": 20,
    "learning_rate": 0.004,
    "loss": -0.25,
    "gradient_norm": 1.5,
    "patches_per_s": 12.0,
    "data_wait_share": 0.125,
    "time_left_s": 99.0,
}


def records(path):
    """Read the events of a file. A record is a length, its checksum, the event and its checksum."""
    content, at, events = path.read_bytes(), 0, []
    while at < len(content):
        length, check = struct.unpack_from("<QI", content, at)
        assert check == masked_crc32c(content[at : at + 8])
        data = content[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", content, at + 12 + length) == (masked_crc32c(data),)
        events.append(Event.FromString(data))
        at += 16 + length
    return events


def events_in(folder):
    return [event for path in sorted(folder.iterdir()) for event in records(path)]


def curves(folder):
    """Return {tag: {step: value}} as TensorBoard shows it: repeated steps replace earlier ones."""
    shown = {}
    for event in events_in(folder):
        if event.session_log.status == SessionLog.START:
            for curve in shown.values():
                for step in [step for step in curve if step >= event.step]:
                    del curve[step]
        for value in event.summary.value:
            curve = shown.setdefault(value.tag, {})
            assert event.step not in curve  # no step twice
            is_scalar = value.WhichOneof("value") == "simple_value"
            curve[event.step] = value.simple_value if is_scalar else value.image
    return shown


def pixels_of(image):
    with Image.open(io.BytesIO(image.encoded_image_string)) as picture:
        assert (picture.height, picture.width) == (image.height, image.width)
        return np.asarray(picture)


def snapshot():
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[1, 2] = 86, 180, 233
    return Snapshot("patient_3", pixels)


@pytest.fixture
def events(tmp_path):
    events = EventFile(tmp_path / "tensorboard")
    yield events
    events.close()


def test_a_line_becomes_one_point_on_each_curve(events, tmp_path):
    events.begin(0)
    events.write(LINE)
    events.write({"step": 30, "validation": {"dice": 0.5, "detected": 3, "missed": 1, "false": 0}})
    assert curves(tmp_path / "tensorboard") == {
        "training/loss": {20: -0.25},
        "training/gradient_norm": {20: 1.5},
        "training/learning_rate": {20: pytest.approx(0.004)},
        "training/patches_per_s": {20: 12.0},
        "training/data_wait_share": {20: 0.125},
        "validation/dice": {30: 0.5},
        "validation/detected": {30: 3.0},
        "validation/missed": {30: 1.0},
        "validation/false": {30: 0.0},
    }


def test_a_line_without_rates_has_no_point_for_them(events, tmp_path):
    events.begin(0)
    events.write({"step": 1, "learning_rate": 0.5, "loss": -0.5, "gradient_norm": 2.0})
    tags = curves(tmp_path / "tensorboard").keys()
    assert tags == {"training/loss", "training/gradient_norm", "training/learning_rate"}


def test_an_undefined_dice_makes_no_point(events, tmp_path):
    events.begin(0)
    scores = {"dice": math.nan, "detected": 0, "missed": 0, "false": 0}
    events.write({"step": 30, "validation": scores})
    shown = curves(tmp_path / "tensorboard")
    assert "validation/dice" not in shown
    assert shown["validation/missed"] == {30: 0.0}


def test_a_picture_is_kept_pixel_by_pixel(events, tmp_path):
    events.begin(0)
    events.write_picture(30, snapshot())
    shown = curves(tmp_path / "tensorboard")["validation_patient/patient_3"]
    np.testing.assert_array_equal(pixels_of(shown[30]), snapshot().pixels)


def test_a_line_is_on_disk_at_once_and_no_thread_is_started(events, tmp_path):
    before = threading.active_count()
    events.begin(0)
    for step in (1, 2, 3):
        events.write(LINE | {"step": step})
        assert list(curves(tmp_path / "tensorboard")["training/loss"]) == list(range(1, step + 1))
    assert threading.active_count() == before


def test_steps_that_a_continued_run_repeats_are_shown_once(tmp_path):
    folder = tmp_path / "tensorboard"
    # All three files are made in the same second, so the time does not give their order.
    for first_step, loss in ((0, -0.1), (4, -0.2), (12, -0.3)):
        events = EventFile(folder)
        events.begin(first_step)
        for step in range(first_step + 2, first_step + 12, 2):
            events.write(LINE | {"step": step, "loss": loss})
        events.close()
    expected = {2: -0.1, 4: -0.1, 6: -0.2, 8: -0.2, 10: -0.2, 12: -0.2}
    expected |= {14: -0.3, 16: -0.3, 18: -0.3, 20: -0.3, 22: -0.3}
    assert curves(folder)["training/loss"] == pytest.approx(expected)


def test_closing_a_file_that_was_never_begun_does_nothing(events, tmp_path):
    events.close()
    assert not (tmp_path / "tensorboard").exists()


def logged(run):
    """Return the lines of log.jsonl: {step: line} of the training, and of the validation."""
    lines = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    training = {line["step"]: line for line in lines if "loss" in line}
    return training, {line["step"]: line["validation"] for line in lines if "validation" in line}


def test_the_curves_of_a_continued_training_agree_with_its_log(small_config, tmp_path, monkeypatch):
    small_config.predict.threshold = 0.001  # every voxel is predicted, to have outlines
    small_config.train.validate_every_steps = 2
    run = RunFolder(tmp_path / "run")
    kill_at(6, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_run(small_config, run)
    stopped = curves(run.tensorboard)
    assert list(stopped["training/loss"]) == [2, 3, 4]
    monkeypatch.undo()
    train_run(small_config, run)  # from the checkpoint of step 3

    training, validation = logged(run)
    shown = curves(run.tensorboard)
    assert list(training) == [2, 3, 4, 6]
    for name in ("loss", "gradient_norm", "learning_rate"):
        values = {step: line[name] for step, line in training.items()}
        assert shown[f"training/{name}"] == pytest.approx(values)
    assert list(validation) == [2, 4, 6]
    for name in ("dice", "detected", "missed", "false"):
        values = {step: scores[name] for step, scores in validation.items()}
        assert shown[f"validation/{name}"] == pytest.approx(values)

    (tag,) = [tag for tag in shown if tag.startswith("validation_patient/")]
    assert list(shown[tag]) == [2, 4, 6]
    for image in shown[tag].values():
        pixels = pixels_of(image)
        second_visit = pixels[60:, pixels.shape[1] // 2 :]  # below the text
        for colour in ((86, 180, 233), (230, 159, 0)):  # reference, prediction
            assert (second_visit == colour).all(axis=-1).sum() > 100
