"""The Python functions for notebooks and scripts. `msseg_jax` exports them."""
