import threading

import pytest
import SimpleITK as sitk

from msseg_jax.prepare import threads
from msseg_jax.prepare.threads import at_once, use_threads


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(threads, "_threads", threads._threads)


def test_tasks_are_done_at_once_and_come_back_in_order():
    use_threads(2)
    both = threading.Barrier(2, timeout=20)  # which none passes alone
    names = at_once(lambda: both.wait() * 0, lambda: both.wait() * 0 + 1, lambda: 2)
    assert names == [0, 1, 2]


def test_with_one_thread_one_is_done_after_the_other():
    use_threads(1)
    begun = []

    def task(number):
        begun.append(number)
        return threading.current_thread().name

    assert len(set(at_once(*(lambda n=n: task(n) for n in range(5))))) == 1
    assert begun == list(range(5))


def test_of_no_task_there_is_nothing():
    assert at_once() == []


def test_a_task_that_fails_says_so_and_those_that_wait_are_not_begun():
    use_threads(1)
    begun = []

    def fail():
        raise RuntimeError("no overlap")

    with pytest.raises(RuntimeError, match="no overlap"):
        at_once(fail, *[lambda: begun.append(threading.Event().wait(0.2))] * 5)
    assert len(begun) < 5


def test_itk_has_one_thread_however_many_there_are():
    use_threads(3)
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
    assert sitk.ImageRegistrationMethod().GetNumberOfThreads() == 1
