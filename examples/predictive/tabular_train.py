"""Trains a classifier on rows of 30 numbers in a second and exports it: tabular_train.py FOLDER

The data are scikit-learn's 569 breast tumours. No package ships real payments, but a table of card payments has the
same shape: some thirty numbers a row, two classes, and a score that is wanted while somebody waits.
"""

import sys
from pathlib import Path

from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split

data = load_breast_cancer()
rows, target = data.data.astype("float32"), data.target
train_rows, test_rows, train_target, test_target = train_test_split(rows, target, random_state=0)
model = GradientBoostingClassifier(random_state=0).fit(train_rows, train_target)

folder = Path(sys.argv[1])
(folder / "1").mkdir(parents=True, exist_ok=True)
onnx = to_onnx(model, test_rows[:1], options={"zipmap": False})  # scores as a tensor, not as a list of maps
(folder / "1" / "model.onnx").write_bytes(onnx.SerializeToString())
(folder / "inferd.yaml").write_text(
    f"batching: {{max_batch_size: 64}}\nlabels: {{probabilities: {data.target_names.tolist()}}}\n"
    f"features: {{X: {data.feature_names.tolist()}}}\n"
)
print(f"{model.score(test_rows, test_target):.1%} of {len(test_rows)} unseen rows are right")
