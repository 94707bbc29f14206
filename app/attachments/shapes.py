"""What a version of a letter has with it: files that were uploaded, and files that are made for each letter."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, TypeAdapter, model_validator

MOST = 10  # files of one letter
LONGEST_NAME = 255
PAYMENT_QR, BRAND_LOGO = "payment-qr.png", "brand-logo"  # as HTML names them: `cid:payment-qr.png`

GeneratedKind = Literal["statement_pdf", "statement_csv", "calendar", "payment_qr"]
# RFC 2392: what stands in `cid:` needs no escaping if it is written in these.
CidName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class AttachedFileIn(BaseModel):
    """An uploaded file. An inline one is shown within the HTML, which names it `cid:<name>`; so it has to have a name, of letters, digits and `. _ -`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["file"]
    id: UUID = Field(description="From `POST /attachments`")
    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)] | None = Field(
        default=None, description="The name in the letter; else that of the upload"
    )
    inline: StrictBool = False

    @model_validator(mode="after")
    def _inline_is_named(self) -> Self:
        if self.inline:
            if self.name is None:
                raise ValueError("Give the inline file a name: the HTML shows it as cid:<name>.")
            CID_NAME.validate_python(self.name)
        return self


class GeneratedFileIn(BaseModel):
    """A file that is made for each letter when it is sent, of the account and of the event's data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: GeneratedKind


CID_NAME: TypeAdapter[str] = TypeAdapter(CidName)
AttachmentIn = Annotated[AttachedFileIn | GeneratedFileIn, Field(discriminator="kind")]


def _no_repetitions(given: list[AttachedFileIn | GeneratedFileIn]) -> list[AttachedFileIn | GeneratedFileIn]:
    made = [spec.kind for spec in given if isinstance(spec, GeneratedFileIn)]
    if len(made) != len(set(made)):
        raise ValueError("Name each kind of a made file once.")
    shown = [PAYMENT_QR, BRAND_LOGO, *(spec.name for spec in given if isinstance(spec, AttachedFileIn) and spec.inline)]
    if len(shown) != len(set(shown)):
        raise ValueError(f"Give each inline file a name of its own, other than {PAYMENT_QR} and {BRAND_LOGO}: the HTML knows it by that.")
    return given


Attachments = Annotated[list[AttachmentIn], Field(max_length=MOST), AfterValidator(_no_repetitions)]
_STORED: TypeAdapter[list[AttachedFileIn | GeneratedFileIn]] = TypeAdapter(list[AttachmentIn])


def read_specs(specs: Sequence[Any]) -> list[AttachedFileIn | GeneratedFileIn]:
    """The stored list of a message as shapes: of a version's, with what the brand adds. pydantic's ValidationError when it is none."""
    return _STORED.validate_python(list(specs))
