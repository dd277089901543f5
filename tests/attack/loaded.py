"""Imported by the fork server alone: the libraries, and none of their threads."""

import importlib
import threading

from tqdm import tqdm

from tests.attack.zygote import LIBRARIES

for name in LIBRARIES:
    importlib.import_module(name)

# Its own is a semaphore of the system's, which a killed fork leaves behind.
tqdm.set_lock(threading.RLock())
