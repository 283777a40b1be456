import errno
import os

import pytest

from msseg_jax.system.errors import InputError
from msseg_jax.system.failures import is_out_of_memory, reason_of


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 9.00GiB"), True),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Shared memory size limit exceeded"), False),
        (RuntimeError("RESOURCE_EXHAUSTED: Received message larger than max"), False),
        (RuntimeError("INTERNAL: illegal address"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_a_full_disk_is_described_without_the_name_of_a_class():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    expected = "reading or writing a file failed (No space left on device). Check the disk."
    assert reason_of(error) == expected


def test_other_errors_are_described_with_their_type_except_those_for_users():
    assert reason_of(InputError("a.nii: is empty.")) == "a.nii: is empty."
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
