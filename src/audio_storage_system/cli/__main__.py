"""`python -m audio_storage_system.cli`."""

import sys

from audio_storage_system.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
