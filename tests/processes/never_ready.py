"""A process of a launch that is still importing: it says so in the file beside its job, and waits."""

import sys
import time
from pathlib import Path

Path(sys.argv[1]).with_name("importing").touch()
time.sleep(60)
