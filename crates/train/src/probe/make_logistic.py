#!/usr/bin/env python3
"""Writes fits of scikit-learn's LogisticRegression for the test of `logistic.rs`.

    pip install scikit-learn
    python make_logistic.py > logistic.json

Made with scikit-learn 1.9.
"""
import json
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(1)
cases = []
for n, features, classes, noise in [(40, 5, 3, 1.0), (30, 12, 4, 2.0), (50, 3, 2, 0.5)]:
    labels = rng.integers(classes, size=n)
    x = np.round(rng.normal(size=(classes, features))[labels] + noise * rng.normal(size=(n, features)), 3)
    z = StandardScaler().fit_transform(x)
    fits = []
    for l2 in [1.0, 0.1, 0.01]:
        # Two classes are fitted with one row a class here, as with any number: scikit-learn's two-class form has one row.
        if classes == 2:
            model = LogisticRegression(C=2 / (n * l2), tol=1e-10, max_iter=100000).fit(z, labels)
            half = np.vstack([model.coef_[0], ]) / 2
            coef, bias = np.vstack([-half, half]), np.array([-model.intercept_[0], model.intercept_[0]]) / 2
        else:
            model = LogisticRegression(C=1 / (n * l2), tol=1e-10, max_iter=100000).fit(z, labels)
            coef, bias = model.coef_, model.intercept_ - model.intercept_.mean()
        logits = z @ coef.T + bias
        nll = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(n), labels])
        loss = nll + l2 / 2 * np.sum(coef ** 2)
        fits.append({"l2": l2, "loss": float(loss), "weights": np.vstack([coef.T, bias]).ravel().tolist()})
    cases.append({"n": n, "features": features, "classes": classes, "x": x.ravel().tolist(),
                  "labels": labels.tolist(), "fits": fits})
print(json.dumps(cases))
