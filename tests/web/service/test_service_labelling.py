"""Label Studio's configuration, which is a stranger's XML."""

from __future__ import annotations

import pytest
from label_studio_asks import CONFIG

from cliper.errors import ClassListError
from cliper.formats.label_studio import labeling_config
from cliper.web.service.labelling import read_labelling


def test_the_configuration_that_the_formats_write_is_read() -> None:
    found = read_labelling(labeling_config(["dog", "red bus", "a<b"]), 9)
    assert (found.brush, found.image, found.value) == ("tag", "image", "image")
    assert found.labels == [(name, name) for name in ("dog", "red bus", "a<b")]


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (BOMB + "]><View>&j;</View>", "document type"),
        ('<!DOCTYPE v SYSTEM "http://127.0.0.1:1/x.dtd"><View/>', "document type"),
        ('<?xml version="1.0" encoding="nonsense"?><View/>', "expected <Image"),
        ('<?xml version="1.0" encoding="utf-7"?><View/>', "expected <Image"),
        ('<?xml version="1.0" encoding="idna"?><View/>', "expected <Image"),
        ('<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><View>&x;</View>', "document type"),
        ("<View>&x;</View>", "could not read"),
        ("", "could not read"),
        ("\ud800", "could not read"),
        ("<View>", "could not read"),
        ("<View></View>" * 2, "could not read"),
        ("<View>" * 100_000, "could not read"),
        ('<View><Image name="i" value="$p"/></View>', "got none"),
        ('<View><Image name="i" value="$p"/><BrushLabels name="b" toName="i"/></View>', "got none"),
        (CONFIG.replace('toName="photo"', 'toName="text"'), "got none"),
        (CONFIG.replace("$picture", "picture"), "got none"),
        (CONFIG.replace('value="dog"', 'value=" "'), "with a value"),
        (CONFIG.replace('value="dog"', 'value="a;b"'), "without ';'"),
        (CONFIG.replace('<Label value="cat"', '<Label value="x"/>' * 30 + '<Label value="cat"'), "at most 20"),
    ],
    ids=lambda text: ascii(text)[:24],
)
def test_configurations_that_cannot_be_used(config: str, said: str) -> None:
    with pytest.raises(ClassListError, match=said):
        read_labelling(config, 20)
