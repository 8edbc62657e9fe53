"""The benchmarks, a file each; importing this package imports every file beside it, and each fills `TASKS`.

Nothing heavy is imported.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
