"""The block `candidates` of a study that follows a published table: settings that the report leaves open.

Each candidate runs on the rows that tell most, and the one whose numbers lie closest to the published ones, over all of
these rows together, is what the report most likely did. Rows that were used in choosing are no evidence afterwards.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Candidates(BaseModel):
    """The block `candidates` of a study's page.

    Attributes:
        rows: The rows that tell most; each has a published number.
        settings: By the candidate's name, its overrides, beside the row's; none: the page as it stands.
        seed: Of every run.
        epochs: Of every run; fewer than the published ones' are a screening. None: the row's own.
        metric: What is compared with the published number.
        chosen: The candidate that stands in the page's base since; None: none yet.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    rows: list[str] = Field(min_length=1)
    settings: dict[str, list[str]] = Field(min_length=2)
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=1)] | None = None
    metric: str = "test/accuracy"
    chosen: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "Candidates":
        if len(set(self.rows)) < len(self.rows):
            raise ValueError("rows lists a row twice")
        if self.chosen is not None and self.chosen not in self.settings:
            raise ValueError(f"chosen is {self.chosen}, and the settings are {', '.join(self.settings)}")
        return self
