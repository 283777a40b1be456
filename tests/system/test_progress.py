"""Where nobody is looking, as in these tests, whose standard error is no terminal."""

from msseg_jax.system import progress
from msseg_jax.system.progress import followed, steps


def test_a_log_has_a_line_for_each_step_when_it_begins(capsys):
    with steps("preparing") as say:
        say("reading")
        assert capsys.readouterr().err == "preparing: reading\n"
        say("writing")
    assert capsys.readouterr().err == "preparing: writing\n"


def test_a_log_says_now_and_then_how_many_are_done(capsys, monkeypatch):
    clock = iter(range(0, 1000, 10))  # s; each thing takes some 10
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(followed("abcdefgh", "tiles", least_s=25)) == list("abcdefgh")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tiles: 3 of 8 done"
    assert 1 < len(lines) < 4


def test_what_is_quickly_done_is_not_spoken_of(capsys):
    assert list(followed(range(5), "tiles")) == list(range(5))
    assert capsys.readouterr().err == ""


def test_of_what_has_no_end_the_total_is_not_told(capsys):
    assert list(followed(iter("ab"), "files", least_s=0)) == ["a", "b"]
    assert capsys.readouterr().err == "files: 1 done\nfiles: 2 done\n"
