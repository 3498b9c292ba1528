from __future__ import annotations

import pytest

from dicom_node.routing import Priority, RulesError, default_rules, parse_rules


def test_a_rule_file_is_read() -> None:
    rules = parse_rules(
        """
        rules:
          - name: head-ct
            when:
              modality: [ct]
              sop_class: CT Image Storage
              body_part: ['*head*', '']
              tags: {MagneticFieldStrength: [1.5, '3*']}
              min_images: 10
            models: [bleeding, tumour@2.0.1]
            shadow: bleeding@3.0.0
            destinations: pacs
            priority: stat
        fallback: {destinations: [archive]}
        """
    )
    (rule,) = rules.rules
    assert rule.when.modality == ("CT",)
    assert rule.when.sop_class == ("1.2.840.10008.5.1.4.1.1.2",)
    assert rule.when.tags == (("MagneticFieldStrength", ("1.5", "3*")),)
    assert rule.then.priority is Priority.STAT
    assert rule.then.destinations == ("pacs",)
    assert [str(model) for model in rule.then.models] == ["bleeding", "tumour@2.0.1"]
    assert [str(model) for model in rule.then.shadows] == ["bleeding@3.0.0"]
    assert rules.fallback.destinations == ("archive",)


def test_an_empty_file_has_no_rules() -> None:
    assert parse_rules("").rules == ()


def test_the_default_rules_are_valid() -> None:
    assert default_rules().rules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rules: [{name: a, when: {modalty: MR}}]",
            "rule 'a', field when.modalty: unknown field, did you mean 'modality'",
        ),
        (
            "rules: [{name: a, when: {}, modls: [x]}]",
            "rule 'a', field modls: unknown field, did you mean 'models'",
        ),
        ("rules: [{name: a, when: {tags: {PatientNam: x}}}]", "did you mean 'PatientName'"),
        ("rules: [{name: a, when: {sop_class: CTImageStorge}}]", "did you mean 'CTImageStorage'"),
        ("rules: [{name: a, when: {}, priority: urgent}]", "rule 'a', field priority"),
        ("rules: [{name: a, when: {min_images: -1}}]", "rule 'a', field when.min_images"),
        ("rules: [{name: a, when: {modality: no}}]", "rule 'a', field when.modality"),
        ("rules: [{name: a, when: {}, models: [head-ct@1]}]", "rule 'a', field models: 'head-ct@1' names no"),
        ("rules: [{name: a, when: {}, shadow: [Head CT]}]", "write name or name@version"),
        ("rules: [{when: {}}]", "rule 1, field name"),
        ("rules: [{name: a, when: {}}, {name: a, when: {}}]", "two rules have this name"),
        ("fallback: {modls: [x]}", "fallback, field modls"),
        ("rule: []", "rule file, field rule: unknown field, did you mean 'rules'"),
        ("rules: &x []\nfallback: *x", "aliases are not allowed"),
        ("rules: []\nrules: []", "given twice"),
        ("rules: [", "not YAML"),
        ("rules: [{name: !!python/object/apply:os.system ['id'], when: {}}]", "not YAML"),
        ("- a", "rule file"),
        ("[" * 5000, "not YAML"),
        ("x" * 1_000_001, "longer than"),
    ],
)
def test_a_mistake_is_named_where_it_is(text: str, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(text)
    assert message in str(caught.value)
