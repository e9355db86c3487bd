"""Write the keys that Axolotl's schema knows, from an installed Axolotl.

.venv-axolotl/bin/python bench/axolotl_fields.py > src/ltm/runs/engines/data/axolotl_fields.json
"""

from __future__ import annotations

import json
from importlib.metadata import version

from axolotl.utils.schemas.config import AxolotlConfigWCapabilities

if __name__ == "__main__":
    fields = sorted(AxolotlConfigWCapabilities.model_fields)
    aliases = sorted(str(f.alias) for f in AxolotlConfigWCapabilities.model_fields.values() if f.alias)
    print(json.dumps({"axolotl": version("axolotl"), "fields": sorted({*fields, *aliases})}, indent=1))
