"""The numbers that a newcomer will quote: thresholds, factors and counts in the evidence."""

import pytest

MEASURED = {
    "G02": ("passes 8 additions and reaches the first leaf",),
    "G03": ("up to 103 terms",),
    "G04": ("96 of 96 rows",),
    "G09": ("gradient stays 7.39", "makes the gradient 0.0"),
    "G11": ("keeps 0 KiB", "the losses themselves 80"),
    "G13": ("999 dead units of 1000 are called normal",),
    "G16": ("2.0 times as large",),
    "G18": ("11.09 in float16, 89.00 in bfloat16, 88.72 in float32, 709.78 in float64",),
    "G20": ("at 0 it is -Inf with the gradient Inf, at -0.0 it is -Inf with -Inf",),
    "G22": ("-18.42 in float32 and -Inf in float16", "is off by 4.6"),
    "G26": ("20 of 20 clouds",),
    "G28": ("up to 2.9e-39", "from 5.4e-20 already"),
    "G29": ("1e8 with the gradient -1e16",),
    "G31": ("Inf, 103.3, 69.1, 18.4", "4.04e36 on in float32, 8184 in float16"),
    "G36": ("3.26e18 in float32, 45.2 in float16", "1.84e19, 256"),
    "G39": ("22.19 in float16, 178.00 in bfloat16, 177.45 in float32, 1419.57 in float64",),
    "G43": ("4 of 12 gradients", "spoil 4 parameters, and 12", "spoils 0 gradients"),
    "G44": ("the loss from 85.3", "the KL of a cell from 86.6", "exp(logvar) from 88.7"),
    "G45": ("+18.42", "+103.28", "-0.121"),
    "G48": ("3.0e-8 in float16, 4.6e-41 in bfloat16, 7.0e-46 in float32",),
    "G50": ("the mean logvar at 15.0",),
    "G52": ("0.29 where it is -1.71",),
    "G55": ("1.84e19 in float32 and 256 in float16",),
    "G57": ("1.300 without a penalty, 1.156 at weight 1 and 1.052 at 100", "gives 1.050"),
    "G58": ("10 times in 48 steps, 132 times in 100 and 1.5e21 times in 1000",),
    "G59": ("18% too low",),
    "G60": ("1.00 MiB for backward in one piece, 1.02 in chunks, 0.02", "0.00 under no_grad"),
    "G63": ("fires at step 1", "fires at step 0"),
    "G66": ("at least 7738",),
    "G70": ("it is 0.865 and the difference is 17.37",),
    "G71": ("the norm NaN and 5 NaN", "makes 5 of 5 exactly 0"),
    "G72": ("3 of 3 gradients are NaN",),
    "G78": ("step 100 as the last good one holds NaN", "seen at step 100", "that of step 0"),
    "G79": ("with the noise as well 0",),
    "G81": ("3 of 3 broken models",),
    "G83": ("12 of 12 parameters",),
    "D03": ("on centred data 2e-7",),
    "D04": ("-0.07 at 1e7 and -55 at 1e8",),
    "D08": ("every 693 steps",),
    "D10": ("-0.03 10 clean batches later", "Inf NaN for ever"),
    "D11": ("166 bad steps", "down to 0"),
    "D12": ("sound rank is NaN", "waited in vain", "both have skipped"),
    "D13": ("three give 7",),
    "D14": ("39 times by step 9", "1.7e8 times by step 610"),
    "D18": ("of 60 steps 11 are made and 49 skipped",),
    "D20": ("2049 in float16, 257 in bfloat16, 16777217 in float32",),
    "D27": ("gradient 5.6e-45", "0 where subnormal", "from step 175 on"),
}


@pytest.mark.parametrize("id", MEASURED)
def test_the_evidence_holds_the_numbers(id, findings):
    for words in MEASURED[id]:
        assert words in findings[id].evidence
