# Writes checks.json: tests and tables of fit of models of data/*.csv, by their
# definitions.  Rscript tests/references/checks.R, after glm.R.  R 4.2.2.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "common.R"))
library(MASS)

fitted_glm <- function(formula, data, family)
  glm(as.formula(formula), family, stored(data), control = glm.control(EPSILON, MAXIT))

# ResourceSelection::hoslem.test (0.3), but for frequencies: groups between unique quantiles of the
# predictions; degrees of freedom of the groups that there are
hoslem <- function(y, p, g) {
  cuts <- unique(quantile(p, probs = seq(0, 1, 1 / g)))
  group <- cut(p, breaks = cuts, include.lowest = TRUE)
  observed <- xtabs(cbind(y0 = 1 - y, y1 = y) ~ group)
  expected <- xtabs(cbind(yhat0 = 1 - p, yhat1 = p) ~ group)
  chisq <- sum((observed - expected)^2 / expected)
  df <- nlevels(group) - 2
  list(stat = chisq, df = df, pvalue = pchisq(chisq, df, lower.tail = FALSE),
       observed = array_json(observed[, 2]), expected = array_json(expected[, 2]))
}

hosmer <- list()
for (case in list(list("Pima_tr", "type ~ glu + bmi + age", "type", "Yes", 10),
                  list("Pima_tr", "type ~ npreg + glu + bp + skin + bmi + ped + age", "type", "Yes", 7),
                  list("birthwt", "low ~ age + lwt + smoke + ht", "low", 1, 10),
                  list("birthwt", "low ~ factor(race) + smoke", "low", 1, 10),
                  list("infert", "case ~ spontaneous + induced", "case", 1, 8))) {
  fit <- fitted_glm(case[[2]], case[[1]], binomial())
  y <- as.numeric(stored(case[[1]])[[case[[3]]]] == case[[4]])
  hosmer <- c(hosmer, list(c(list(data = case[[1]], formula = gsub("factor(", "C(", case[[2]], fixed = TRUE), groups = case[[5]]),
                             hoslem(y, fitted(fit), case[[5]]))))
}

# AER::dispersiontest: t of the auxiliary regressions without constant, one-sided
# normal; Dean (1992), P_B and P_C
over <- list()
for (case in list(list("epil", "y ~ base + trt + V4", "y"), list("quine", "Days ~ Eth*Sex + Age + Lrn", "Days"),
                  list("discoveries", "count ~ I(year - 1900)", "count"), list("InsectSprays", "count ~ spray", "count"))) {
  fit <- fitted_glm(case[[2]], case[[1]], poisson())
  y <- stored(case[[1]])[[case[[3]]]]
  mu <- fitted(fit)
  aux <- ((y - mu)^2 - y) / mu
  one <- summary(lm(aux ~ 1))$coefficients
  two <- summary(lm(aux ~ 0 + mu))$coefficients
  pb <- sum((y - mu)^2 - y) / sqrt(2 * sum(mu^2))
  pc <- sum(aux) / sqrt(2 * length(y))
  over <- c(over, list(list(
    data = case[[1]], formula = gsub("^", "**", case[[2]], fixed = TRUE),
    stat = array_json(c(pb, pc, one[1, 3], two[1, 3])),
    estimate = array_json(c(one[1, 1], two[1, 1])),
    pvalue = array_json(pnorm(c(pb, pc, one[1, 3], two[1, 3]), lower.tail = FALSE)),
    pearson = sum(residuals(fit, "pearson")^2) / fit$df.residual, deviance = deviance(fit) / fit$df.residual)))
}

# frequencies of 0 .. most, and beyond
roots <- list()
root <- function(data, formula, family, most, count, density, fit, arguments = NULL) {
  seen <- vapply(0:most, function(k) sum(count == k), 0)
  expected <- vapply(0:most, function(k) sum(density(k, fit)), 0)
  roots <<- c(roots, list(list(data = data, formula = formula, family = family, theta = arguments, most = most,
    observed = array_json(c(seen, length(count) - sum(seen))),
    expected = array_json(c(expected, length(count) - sum(expected))))))
}
f <- fitted_glm("y ~ base + trt + V4", "epil", poisson())
root("epil", "y ~ base + trt + V4", "poisson", 20, stored("epil")$y, function(k, fit) dpois(k, fitted(fit)), f)
f <- fitted_glm("Days ~ Eth + Sex + Age", "quine", negative.binomial(1.5, link = "log"))
root("quine", "Days ~ Eth + Sex + Age", "negative_binomial", 12, stored("quine")$Days,
     function(k, fit) dnbinom(k, mu = fitted(fit), size = 1.5), f, 1.5)
b <- stored("budworm")
f <- fitted_glm("cbind(dead, alive) ~ sex + ldose", "budworm", binomial())
root("budworm", "cbind(dead, alive) ~ sex + ldose", "binomial", 20, b$dead,
     function(k, fit) dbinom(k, 20, fitted(fit)), f)

output <- file(file.path(here, "checks.json"), "wb")
block <- function(cases) paste(vapply(cases, record, ""), collapse = ",\n")
writeLines(c(paste0("{\"hosmer_lemeshow\": [\n", block(hosmer), "],"),
             paste0("\"overdispersion\": [\n", block(over), "],"),
             paste0("\"rootogram\": [\n", block(roots), "]}")), output, sep = "\n")
close(output)
