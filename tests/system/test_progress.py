"""Test the progress lines in a log: in these tests, standard error is not a terminal."""

from msseg_jax.system import progress
from msseg_jax.system.progress import followed, steps


def test_a_log_has_a_line_for_the_beginning_of_each_step(capsys):
    with steps("preparing") as say:
        say("reading")
        assert capsys.readouterr().err == "preparing: reading\n"
        say("writing")
    assert capsys.readouterr().err == "preparing: writing\n"


def test_a_log_shows_from_time_to_time_how_many_things_are_done(capsys, monkeypatch):
    clock = iter(range(0, 1000, 10))  # s; each thing takes about 10 s
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(followed("abcdefgh", "tiles", least_s=25)) == list("abcdefgh")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tiles: 3 of 8 done"
    assert 1 < len(lines) < 4


def test_a_log_has_no_lines_for_short_work(capsys):
    assert list(followed(range(5), "tiles")) == list(range(5))
    assert capsys.readouterr().err == ""


def test_a_log_shows_no_total_if_it_is_unknown(capsys):
    assert list(followed(iter("ab"), "files", least_s=0)) == ["a", "b"]
    assert capsys.readouterr().err == "files: 1 done\nfiles: 2 done\n"
