"""Learns when machines fail, and writes the model and the table of a fleet: maintenance_train.py FOLDER [ROWS]

No package ships such records, so these are simulated: wear grows from day to day, each machine's at its own pace, and
shows in vibration, temperature and current under noise. The model says whether a machine fails within ten days.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

SENSORS = ["vibration", "temperature", "current", "load", "hours"]
rng = np.random.default_rng(0)


def days(num_machines: int) -> tuple[np.ndarray, np.ndarray]:
    """Sensors, (rows, 5), and whether the end is near, (rows,); a row is one day of one machine."""
    rows, near = [], []
    for pace in rng.uniform(0.004, 0.02, num_machines):
        wear = np.cumsum(rng.gamma(2, pace / 2, 400))
        wear = wear[wear < 1]
        load = rng.uniform(0.3, 1, len(wear))
        noise = rng.normal(size=(len(wear), 3))
        vibration = 1 + 4 * wear**3 + 0.3 * noise[:, 0]
        temperature = 40 + 25 * load + 15 * wear**2 + 2 * noise[:, 1]
        current = 8 * load * (1 + 0.3 * wear**2) + 0.2 * noise[:, 2]
        rows.append(np.column_stack([vibration, temperature, current, load, 24 * np.arange(len(wear))]))
        near.append(np.arange(len(wear)) >= len(wear) - 10)
    return np.concatenate(rows).astype(np.float32), np.concatenate(near)


folder, num_rows = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
folder.mkdir(parents=True, exist_ok=True)
model = RandomForestClassifier(40, max_depth=10, class_weight="balanced", random_state=0).fit(*days(300))
onnx = to_onnx(model, np.zeros((1, len(SENSORS)), np.float32), options={"zipmap": False})
(folder / "model.onnx").write_bytes(onnx.SerializeToString())
(folder / "inferd.yaml").write_text(f"features: {{X: {SENSORS}}}\nlabels: {{probabilities: [runs, fails]}}\n")

fleet, near = days(400)
found = model.predict(fleet)
print(f"{np.mean(found[near]):.1%} of the last days are found, {np.mean(found[~near]):.1%} of the others called so")
with open(folder / "fleet.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["row", *SENSORS])
    for row in range(num_rows):
        writer.writerow([row, *(f"{value:.4f}" for value in fleet[row % len(fleet)])])
