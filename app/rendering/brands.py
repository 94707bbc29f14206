"""As whom an account is written to: sender, looks, links and requisites. The settings of a brand, and which account has which.

the first brand by name whose `match` fits the attributes of the account -> the default one -> the built-in one
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self
from uuid import UUID

import structlog
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, ValidationError, field_validator, model_validator

from app.core.mailboxes import parse_mailbox

log = structlog.get_logger()

LOGO = "brand-logo"  # as letters name it: cid:brand-logo
LINKS = ("cabinet", "site")  # of a brand that has none they are empty; others a template asks about
LINE = r"^[^\x00-\x1f\x7f\x85\u2028\u2029]*$"  # a line break in any of these would begin another header
URL = r"^https?://[^\s\x00-\x20\x7f<>\"'\\]{1,1000}$"


def _mailbox(value: str) -> str:
    try:
        _, address = parse_mailbox(value)
        valid = validate_email(address, check_deliverability=False, globally_deliverable=False)
    except (EmailNotValidError, ValueError) as error:
        raise ValueError(f"Write an address, or `Name <address>`: {error}") from None
    if valid.ascii_email is None:
        # RFC 6531, 3.2: it would need SMTPUTF8 at every hop of every letter.
        raise ValueError("The part of the address before @ has to be ASCII.")
    return value.strip()


Mailbox = Annotated[str, StringConstraints(min_length=3, max_length=500, pattern=LINE), AfterValidator(_mailbox)]
Line = Annotated[str, StringConstraints(max_length=500, pattern=LINE)]
Colour = Annotated[str, StringConstraints(pattern=r"^#[0-9A-Fa-f]{6}$")]
Link = Annotated[str, StringConstraints(max_length=1000, pattern=URL)]
LinkName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class BrandColours(BaseModel):
    """Of letters, as `#rrggbb`."""

    model_config = ConfigDict(extra="forbid")

    primary: Colour = Field("#1f5fd0", description="Buttons")
    background: Colour = Field("#eef1f5", description="Behind the letter")
    text: Colour = "#3a4653"


class BrandFooter(BaseModel):
    """The last line of letters, as text. A language that is not there takes the other one's."""

    model_config = ConfigDict(extra="forbid")

    ru: Line = ""
    en: Line = ""


class BrandPayee(BaseModel):
    """Requisites for the payment QR (GOST R 56042-2014)."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Line, Field(min_length=1, max_length=160)]
    personal_account: Annotated[str, StringConstraints(pattern=r"^[0-9]{20}$")]
    bank_name: Annotated[Line, Field(min_length=1, max_length=45)]
    bic: Annotated[str, StringConstraints(pattern=r"^[0-9]{9}$")]
    correspondent_account: Annotated[str, StringConstraints(pattern=r"^([0-9]{20}|0)$")]
    inn: Annotated[str, StringConstraints(pattern=r"^([0-9]{10}|[0-9]{12})$")] | None = None
    kpp: Annotated[str, StringConstraints(pattern=r"^[0-9]{9}$")] | None = None


class BrandMatch(BaseModel):
    """An account is this brand's when its attribute has this value; true is not 1."""

    model_config = ConfigDict(extra="forbid")

    attribute: Annotated[str, Field(min_length=1, max_length=64, pattern=LINE)]
    value: StrictBool | StrictInt | Annotated[str, Field(max_length=1000)]

    def fits(self, attributes: Mapping[str, Any]) -> bool:
        value = attributes.get(self.attribute)
        return bool(value == self.value) and isinstance(value, bool) == isinstance(self.value, bool)


class BrandSettings(BaseModel):
    """Everything that makes a brand. What is left out is as the built-in brand has it, or as the gateway does."""

    model_config = ConfigDict(extra="forbid")

    title: Line | None = Field(default=None, description="What subscribers call it; the name of the brand when left out")
    sender: Mailbox | None = Field(default=None, description="From of its letters, e.g. `My ISP <hello@isp.example>`; else the gateway's")
    reply_to: Mailbox | None = None
    layout: Name | None = Field(default=None, description="For words that name no layout of their own")
    colours: BrandColours = Field(default_factory=BrandColours)
    logo: UUID | None = Field(default=None, description="An uploaded picture, from `POST /attachments`")
    links: dict[LinkName, Link] = Field(default_factory=dict, max_length=20, description="`links.<name>` of templates: cabinet, site, ...")
    footer: BrandFooter = Field(default_factory=BrandFooter)
    payee: BrandPayee | None = None
    match: BrandMatch | None = Field(default=None, description="Which accounts are its own")
    is_default: StrictBool = Field(default=False, description="For accounts that no brand matches. At most one brand is")

    @field_validator("links")
    @classmethod
    def _not_ours(cls, links: dict[str, str]) -> dict[str, str]:
        if "unsubscribe" in links:
            raise ValueError("`unsubscribe` is made for each subscriber: leave it out.")
        return links

    @model_validator(mode="after")
    def _is_somebodys(self) -> Self:
        if self.match is not None and self.is_default:
            raise ValueError("A default brand is for accounts that nothing matches: give `match` or `is_default`.")
        return self


@dataclass(frozen=True, slots=True)
class Chosen:
    """The brand of a message. `name` is None for the built-in one."""

    name: str | None
    settings: BrandSettings
    _values: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)

    @property
    def links(self) -> Mapping[str, str]:
        return self.settings.links

    @property
    def serves(self) -> bool:
        """Whether an account may have it."""
        return self.settings.match is not None or self.settings.is_default

    def values(self, locale: str) -> dict[str, Any]:
        """What templates of this language find as `brand`."""
        language = "ru" if re.match(r"ru\b", locale) else "en"
        known = self._values.get(language)
        if known is None:
            given, footer = self.settings, self.settings.footer
            known = self._values[language] = {
                "name": given.title or self.name or "",
                "colours": given.colours.model_dump(),
                "logo": f"cid:{LOGO}" if given.logo is not None else "",
                "links": dict.fromkeys(LINKS, "") | given.links,
                "footer": (footer.ru or footer.en) if language == "ru" else (footer.en or footer.ru),
                "reply_to": given.reply_to or "",
            }
        return known

    def logo(self) -> dict[str, Any] | None:
        """Its logo as a letter has it with it, if there is one."""
        return {"kind": "file", "id": str(self.settings.logo), "name": LOGO, "inline": True} if self.settings.logo is not None else None


BUILT_IN = Chosen(None, BrandSettings())


def _read(name: str, settings: Mapping[str, Any]) -> Chosen | None:
    try:
        return Chosen(name, BrandSettings.model_validate(settings))
    except ValidationError as error:  # a newer service has written it: no reason to tell nobody anything
        log.error("brand_unreadable", brand=name, faults=error.error_count())
        return None


class Brands:
    """All of them, to choose from."""

    def __init__(self, brands: Iterable[Chosen] = ()) -> None:
        self.by_name = {str(brand.name): brand for brand in sorted(brands, key=lambda brand: str(brand.name))}
        self._matching = [brand for brand in self.by_name.values() if brand.settings.match is not None]
        self._default = next((brand for brand in self.by_name.values() if brand.settings.is_default), BUILT_IN)

    @classmethod
    def read(cls, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> "Brands":
        """From the table: (name, settings)."""
        return cls(brand for name, settings in rows if (brand := _read(name, settings)) is not None)

    def __bool__(self) -> bool:
        return bool(self.by_name)

    @property
    def has_default(self) -> bool:
        """Whether no account is left to the built-in one."""
        return self._default is not BUILT_IN

    @property
    def layouts(self) -> list[str]:
        """That they have, by name."""
        return sorted({brand.settings.layout for brand in self.by_name.values() if brand.settings.layout is not None})

    def with_other(self, name: str, settings: BrandSettings | None) -> "Brands":
        """As they would be with this brand changed, added, or (without settings) taken away."""
        others = [brand for brand in self.by_name.values() if brand.name != name]
        return Brands([*others, Chosen(name, settings)] if settings is not None else others)

    def of(self, attributes: Mapping[str, Any]) -> Chosen:
        """The brand of an account with these attributes."""
        for brand in self._matching:
            if brand.settings.match is not None and brand.settings.match.fits(attributes):
                return brand
        return self._default

    def named(self, name: str | None) -> Chosen:
        """The brand that a message was written by; the built-in one when it is not there any more."""
        return self.by_name.get(name or "", BUILT_IN)
