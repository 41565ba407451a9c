"""Evidence: circuits, counterexamples and explanations, measured on the model they are about."""

from exercises_utils.evidence.claims import Claim, Figure, Models, span
from exercises_utils.evidence.exercises import (
    WORTH,
    CheckedTask,
    CircuitCheck,
    CounterexamplesCheck,
    ExplanationCheck,
    SitesCheck,
)
from exercises_utils.evidence.pools import EvidenceTask, build_pool
from exercises_utils.evidence.scores import (
    Circuit,
    CircuitScorer,
    Pool,
    Scorer,
    SimulationScore,
    Site,
    advantage,
    circuit_score,
    percentile_among_random,
    random_circuits,
    random_search,
    rank_among_sets,
    run_simulation,
    score_answers,
    score_counterexamples,
    simulation_score,
)
from exercises_utils.evidence.stored import (
    Evidence,
    accuracy,
    evidence_path,
    load_evidence,
    write_evidence,
)
