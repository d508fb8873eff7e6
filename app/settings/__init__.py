"""Settings: every number and name of the service, from the environment and one TOML file.

model.py       Settings: reads everything, in the order of these files
reading.py       the file and the environment; toml_lines.py: the line of each key
fields.py        every setting; tables.py: the tables; values.py: the values in both
judging.py       what of it contradicts itself
wording.py       problems → sentences that name file, line and key
making.py        settings → the objects of keycache
schema.py      the file as a JSON Schema, for editors
"""

from app.settings.fields import SETTING_NAMES
from app.settings.judging import HEADER_BYTES
from app.settings.model import Settings
from app.settings.names import CONFIG, PREFIX
from app.settings.wording import worded

__all__ = ["CONFIG", "HEADER_BYTES", "PREFIX", "SETTING_NAMES", "Settings", "worded"]
