import threading

import pytest
import SimpleITK as sitk

from msseg_jax.prepare import threads
from msseg_jax.prepare.threads import at_once, use_threads


@pytest.fixture(autouse=True)
def restore_threads(monkeypatch):
    monkeypatch.setattr(threads, "_threads", threads._threads)


def test_tasks_run_at_the_same_time_and_return_results_in_order():
    use_threads(2)
    both = threading.Barrier(2, timeout=20)  # opens only when two threads wait at it
    names = at_once(lambda: both.wait() * 0, lambda: both.wait() * 0 + 1, lambda: 2)
    assert names == [0, 1, 2]


def test_one_thread_runs_the_tasks_one_after_the_other():
    use_threads(1)
    begun = []

    def task(number):
        begun.append(number)
        return threading.current_thread().name

    assert len(set(at_once(*(lambda n=n: task(n) for n in range(5))))) == 1
    assert begun == list(range(5))


def test_the_result_of_no_tasks_is_empty():
    assert at_once() == []


def test_the_error_of_a_task_is_raised_and_waiting_tasks_are_not_started():
    use_threads(1)
    begun = []

    def fail():
        raise RuntimeError("no overlap")

    with pytest.raises(RuntimeError, match="no overlap"):
        at_once(fail, *[lambda: begun.append(threading.Event().wait(0.2))] * 5)
    assert len(begun) < 5


def test_itk_uses_one_thread_for_any_number_of_threads():
    use_threads(3)
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
    assert sitk.ImageRegistrationMethod().GetNumberOfThreads() == 1


def test_tasks_with_large_images_run_one_after_the_other():
    use_threads(2)

    def name():
        threading.Event().wait(0.05)  # long enough for a second thread to start
        return threading.current_thread().name

    assert len(set(at_once(name, name, voxels=threads.MANY_VOXELS))) == 1
    assert len(set(at_once(name, name, voxels=threads.MANY_VOXELS - 1))) == 2
