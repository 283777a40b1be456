import errno
import os

from msseg_jax.system.errors import InputError
from msseg_jax.system.failures import reason_of


def test_a_full_disk_is_described_without_the_name_of_a_class():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    expected = "reading or writing a file failed (No space left on device). Check the disk."
    assert reason_of(error) == expected


def test_other_errors_are_described_with_their_type_except_those_for_users():
    assert reason_of(InputError("a.nii: is empty.")) == "a.nii: is empty."
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
