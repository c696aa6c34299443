"""What the plugin adds to Axolotl's config: top-level keys that start with `regreason_`.

Top-level, not a block, because `axolotl train --sweep` varies top-level keys only.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, model_validator
from typing_extensions import Self

from regreason_plugin.errors import UserError, stop_on_user_error


class RegReasonArgs(BaseModel):
    """Mixed into Axolotl's config model.

    Attributes:
        regreason_arm: The arm to train; fills ``{arm}`` in paths.
    """

    regreason_arm: str | None = Field(
        default=None,
        json_schema_extra={"description": "The arm to train; fills {arm} in paths"},
    )

    @model_validator(mode="after")
    def _packing_separates_samples(self) -> Self:
        # Only known once Axolotl has chosen the attention, and here is the last place
        # before it creates output_dir.
        if getattr(self, "sample_packing", None) and not getattr(
            self, "attn_decontaminates_packing", True
        ):
            with stop_on_user_error():
                raise UserError(
                    "with this attention, packed samples would read each other; set "
                    "attn_implementation to sdpa or flash_attention_2, or sample_packing to false",
                    path=getattr(self, "axolotl_config_path", None),
                    field="sample_packing",
                )
        return self
