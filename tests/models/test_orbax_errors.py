"""Test that orbax fails without tracebacks on the terminal."""

import asyncio
import gc
import logging
import os
import sys

import pytest

from msseg_jax.models import orbax_errors
from msseg_jax.models.orbax_errors import without_tracebacks


@pytest.fixture(autouse=True)
def nothing_stays_hidden(monkeypatch):
    """Undo what a failed block leaves in the process."""
    tasks = logging.getLogger("asyncio")
    monkeypatch.setattr(tasks, "filters", [])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


async def fail():
    raise ValueError("given up")


async def give_up_a_task():
    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    del task


async def give_up_a_future():
    """Leave a result unread, as TensorStore does."""
    asyncio.get_running_loop().create_future().set_exception(ValueError("given up"))


async def give_up_several_tasks():
    tasks = asyncio.gather(fail(), fail())
    await asyncio.sleep(0.01)
    del tasks


WORK = {
    "Task": give_up_a_task,
    "Future": give_up_a_future,
    "_GatheringFuture": give_up_several_tasks,
}


def collect_what_is_given_up(kind: str) -> None:
    """Let work fail, and collect it as garbage without asking for its result."""
    asyncio.run(WORK[kind]())
    gc.collect()


def fail_once() -> None:
    with pytest.raises(OSError, match="full"), without_tracebacks():
        raise OSError("full")


@pytest.mark.parametrize("kind", WORK)
def test_work_that_is_collected_after_a_later_success_stays_hidden(kind, caplog):
    fail_once()
    fail_once()
    with without_tracebacks():
        pass
    collect_what_is_given_up(kind)
    assert caplog.text == ""


@pytest.mark.parametrize("after_an_error", [True, False])
def test_a_task_that_has_not_ended_stays_hidden_only_after_an_error(caplog, after_an_error):
    if after_an_error:
        fail_once()
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.Event().wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del task, loop
    gc.collect()
    assert ("Task was destroyed but it is pending" in caplog.text) is not after_an_error


@pytest.mark.parametrize("kind", WORK)
def test_without_an_error_nothing_stays_hidden(kind, caplog):
    hook = sys.unraisablehook
    with without_tracebacks():
        pass
    assert sys.unraisablehook is hook
    collect_what_is_given_up(kind)
    assert f"{kind} exception was never retrieved" in caplog.text


@pytest.mark.parametrize(
    ("file", "shown"),
    [(os.path.join("site", "orbax", "reading.py"), []), ("other.py", ["collected"])],
)
def test_a_coroutine_of_orbax_that_fails_when_it_is_collected_stays_hidden(
    monkeypatch, file, shown
):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: reported.append(str(what.exc_value)))
    fail_once()
    source = """
async def read(future):
    try:
        await future
    except GeneratorExit as error:
        raise ValueError("collected") from error
"""
    names = {}
    exec(compile(source, file, "exec"), names)  # the code needs this file name
    loop = asyncio.new_event_loop()
    reading = names["read"](loop.create_future())
    reading.send(None)
    del reading
    gc.collect()
    loop.close()
    assert reported == shown


def test_other_messages_are_shown_after_an_error(caplog):
    fail_once()
    logging.getLogger("asyncio").error("something else")
    assert orbax_errors._is_no_given_up_work in logging.getLogger("asyncio").filters
    assert "something else" in caplog.text
