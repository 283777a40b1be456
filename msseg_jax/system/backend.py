"""Start JAX's backend, and explain why it cannot be started."""

import os

import jax

from msseg_jax.system.compiled_programs import keep_compiled_programs
from msseg_jax.system.errors import InputError


def start_backend() -> None:
    """Start the backend of JAX. Call this before any work, so that nothing else is blamed.

    Several processes must be connected first.

    Raises:
      InputError: the backend cannot be started.
    """
    try:
        jax.devices()
    except Exception as error:  # JAX raises errors of many types, also without a message
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        platforms = os.environ.get("JAX_PLATFORMS")
        if platforms:
            raise InputError(
                f"JAX_PLATFORMS is {platforms!r}, but JAX cannot start this platform here "
                f"({reason}). Expected a platform that is installed and has a device. Unset this "
                "environment variable, or set it to 'cpu'."
            ) from error
        raise InputError(
            f"JAX cannot start on this machine ({reason}). To run on the CPU, set the environment "
            "variable JAX_PLATFORMS=cpu."
        ) from error
    keep_compiled_programs()
