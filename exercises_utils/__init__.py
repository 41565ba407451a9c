"""What the exercise notebooks import: models, circuits, checks, figures."""

import warnings

# Two warnings that learners cannot act on. tqdm, which comes with TransformerLens, asks for a package that nothing
# here uses; eindex indexes with a list where torch would rather see a tuple (the result is the same).
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="Using a non-tuple sequence", module="eindex")
