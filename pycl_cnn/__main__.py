"""``python -m pycl_cnn`` is the command line."""

from .cli import main

raise SystemExit(main())
