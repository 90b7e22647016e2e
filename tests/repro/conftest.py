"""A DVC project that has nothing to do with FLAME."""

from tests.foreign_project import foreign as foreign
from tests.foreign_project import foreign_template as foreign_template
from tests.foreign_project import reproduced as reproduced
from tests.foreign_project import reproduced_template as reproduced_template
