"""Test that orbax fails without tracebacks on the terminal."""

import asyncio
import gc
import logging
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


def give_up_a_task() -> None:
    """Let a task fail, and collect it as garbage without asking for its result."""

    async def fail():
        raise ValueError("given up")

    async def start():
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        del task

    asyncio.run(start())
    gc.collect()


def fail_once() -> None:
    with pytest.raises(OSError, match="full"), without_tracebacks():
        raise OSError("full")


def test_a_task_that_is_collected_after_a_later_success_stays_hidden(caplog):
    fail_once()
    fail_once()
    with without_tracebacks():
        pass
    give_up_a_task()
    assert caplog.text == ""


def test_without_an_error_nothing_stays_hidden(caplog):
    hook = sys.unraisablehook
    with without_tracebacks():
        pass
    assert sys.unraisablehook is hook
    give_up_a_task()
    assert "Task exception was never retrieved" in caplog.text


def test_other_messages_are_shown_after_an_error(caplog):
    fail_once()
    logging.getLogger("asyncio").error("something else")
    assert orbax_errors._is_no_given_up_task in logging.getLogger("asyncio").filters
    assert "something else" in caplog.text
