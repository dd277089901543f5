"""A command of kilotune in one of several processes whose model is sharded by FSDP2.

accelerate shards on accelerators alone; here it is told that the processors are some, so that the
same code runs on two gloo processes.
"""

import sys
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from kilotune.cli.main import app

_init = PartialState.__init__


def _told(self: Any, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = _told
    app(sys.argv[1:])
