"""The ``register`` section of ``params.yaml``."""

from pydantic import Field

from cfmvc.config import Section


class RegisterConfig(Section):
    """Under which name a model enters the registry."""

    name: str = Field(pattern=r"^[^/:@%\"']+$", description="name of the registered model")
    alias: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z_-]*$", description="alias that points to the newest version"
    )
