# Reference values for responses with more than two classes: multinomial logit
# and cumulative links.
#
#   Rscript tests/references/vector.R
#
# after glm.R, whose data sets it reads.  Writes vector.json.  Needs MASS, nnet
# and VGAM.
#
# multinom() and polr() (reltol = 1e-15) give the start and are what the result
# is checked against; Newton steps with the exact information below then take
# the scaled score below 1e-9, and the reported numbers are evaluated there.
# Multinomial coefficients are also checked against VGAM's multinomial(refLevel = 1),
# logistic and probit thresholds against its cumulative().  For cauchit polr()
# takes thresholds of -100 and 100 for infinite ones, where Cauchy tails still
# hold 0.3%: there optim() on the likelihood below comes first, from two starts.
#
# Weights are frequencies; deviance is -2 log likelihood, one class for each row.
# Errors: multinomial from the information, which is expected and observed at
# once; ordinal from the observed information.  levels are in the order of the
# model, the first is the multinomial reference.

suppressPackageStartupMessages({ library(MASS); library(nnet); requireNamespace("VGAM") })
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))

near <- function(a, b, tol) all(abs(a - b) <= tol * (1 + abs(b)))

# The rows of a case with positive frequency: X, classes 1, 2, ..., frequencies f, offset.
rows_of <- function(data, formula, levels, weights, offset) {
  frame <- stored(data)
  response <- sub(" *~.*", "", formula)
  frame[[response]] <- factor(as.character(frame[[response]]), levels = levels)
  frame$.f <- if (is.null(weights)) 1 else frame[[weights]]
  frame$.offset <- if (is.null(offset)) 0 else eval(parse(text = offset), frame)
  model <- as.formula(as_r(formula), env = globalenv())
  used <- intersect(c(all.vars(model), ".f", ".offset"), names(frame))
  frame <- droplevels(frame[complete.cases(frame[used]) & frame$.f > 0, , drop = FALSE])
  stopifnot(identical(levels(frame[[response]]), levels))
  mf <- model.frame(model, frame)
  list(model = model, frame = frame, X = model.matrix(model, mf), y = as.integer(frame[[response]]),
       f = frame$.f, offset = frame$.offset, response = response)
}

# Newton from theta with halved steps; terms(theta) gives value, score, information.
# The iterate with the least scaled score.
newton <- function(theta, terms) {
  scaled <- function(t) max(abs(t$score) / sqrt(diag(t$information)))
  now <- terms(theta)
  best <- list(theta = theta, terms = now, score = scaled(now))
  for (i in 1:200) {
    step <- solve(now$information, now$score)
    for (half in 0:30) {
      trial <- terms(theta + step / 2^half)
      if (is.finite(trial$value) && trial$value > now$value - 1e-9 * abs(now$value)) break
    }
    theta <- theta + step / 2^half
    now <- trial
    if (scaled(now) < best$score) best <- list(theta = theta, terms = now, score = scaled(now)) else if (i > 20) break
  }
  best
}

common <- function(kind, name, data, formula, link, m, levels, weights, offset)
  list(name = name, data = paste0(data, ".csv"), formula = formula, r_formula = as_r(formula), family = kind, link = link,
       response = m$response, levels = array_json(levels),
       weights = if (is.null(weights)) NULL else list(type = "frequency", column = weights), offset = offset)

keep_case <- function(fields) {
  stopifnot(!fields$name %in% names(CASES), fields$score < SCORE_LIMIT)
  CASES[[fields$name]] <<- fields
}


# -------------------------------------------------------------- multinomial

# log P(y = k) = eta_k - log sum exp(eta), eta_1 = 0; theta is B (p, classes - 1) by columns.
multinomial_terms <- function(m, classes) function(theta) {
  B <- matrix(theta, ncol(m$X))
  eta <- cbind(0, m$X %*% B)
  top <- apply(eta, 1, max)
  log_p <- eta - top - log(rowSums(exp(eta - top)))
  p <- exp(log_p)
  hit <- cbind(seq_along(m$y), m$y)
  residual <- -p
  residual[hit] <- residual[hit] + 1
  q <- ncol(m$X)
  information <- matrix(0, length(theta), length(theta))
  for (j in 2:classes) for (k in 2:classes) {
    weight <- m$f * (p[, j] * ((j == k) - p[, k]))
    information[(j - 2) * q + 1:q, (k - 2) * q + 1:q] <- crossprod(m$X, m$X * weight)
  }
  list(value = sum(m$f * log_p[hit]), score = c(crossprod(m$X, m$f * residual[, -1, drop = FALSE])),
       information = information, pearson = sum(m$f * (1 / p[hit] - 1)), largest = max(p[hit]))
}

multinomial_case <- function(name, data, formula, levels, weights = NULL) {
  m <- rows_of(data, formula, levels, weights, NULL)
  classes <- length(levels)
  q <- ncol(m$X)
  fit <- do.call(multinom, list(m$model, m$frame, weights = quote(.f), trace = FALSE, maxit = 10000, reltol = 1e-15,
                                abstol = 0, Hess = TRUE))
  start <- matrix(coef(fit), classes - 1)    # rows are levels
  best <- newton(c(t(start)), multinomial_terms(m, classes))
  now <- best$terms
  B <- matrix(best$theta, q)
  error <- matrix(sqrt(diag(solve(now$information))), q)
  # it warns where the last steps are at rounding level
  vglm <- suppressWarnings(do.call(VGAM::vglm, list(
    m$model, VGAM::multinomial(refLevel = 1), m$frame, weights = quote(.f), epsilon = 1e-12, maxit = 100)))
  stopifnot(near(B, t(start), 1e-3), near(error, t(matrix(summary(fit)$standard.errors, classes - 1)), 1e-3),
            near(-2 * now$value, deviance(fit), 1e-8), length(best$theta) == fit$edf,
            near(B, t(matrix(VGAM::coef(vglm), classes - 1)), 1e-6),
            near(now$value, VGAM::logLik(vglm), 1e-9), max(error) < 50)
  # without an intercept the null model gives every class the same probability
  share <- tapply(m$f, m$y, sum) / sum(m$f)
  if (!attr(terms(m$model), "intercept")) share[] <- 1 / classes
  n <- sum(m$f)
  keep_case(c(common("multinomial", name, data, formula, "logit", m, levels, weights, NULL), list(
    names = array_json(colnames(m$X)), coefficients = rows_json(B), standard_errors = rows_json(error),
    deviance = -2 * now$value, null_deviance = -2 * sum(m$f * log(share[m$y])), log_likelihood = now$value,
    aic = 2 * length(best$theta) - 2 * now$value, pearson_chi2 = now$pearson, parameters = length(best$theta),
    df_residual = n * (classes - 1) - length(best$theta), nobs = n, score = best$score)))
}

AGES <- c("<25", "25-29", "30-35", ">35")
EDUCATION <- c("0-5yrs", "6-11yrs", "12+ yrs")
multinomial_case("housing_multinomial", "housing", "Sat ~ Infl + Type + Cont", c("High", "Low", "Medium"), weights = "Freq")
multinomial_case("housing_multinomial_crossed", "housing", "Sat ~ Infl*Type + Cont", c("Low", "Medium", "High"), weights = "Freq")
multinomial_case("housing_type_multinomial", "housing", "Type ~ Infl + Cont", c("Apartment", "Atrium", "Terrace", "Tower"), weights = "Freq")
multinomial_case("infert_multinomial", "infert", "education ~ age + parity + induced", c("0-5yrs", "12+ yrs", "6-11yrs"))
multinomial_case("infert_multinomial_frequency", "infert", "education ~ age + spontaneous", EDUCATION, weights = "parity")
multinomial_case("iris_multinomial", "iris", "Species ~ Sepal_Width", c("setosa", "versicolor", "virginica"))
multinomial_case("iris_multinomial_other_reference", "iris", "Species ~ Sepal_Width", c("virginica", "setosa", "versicolor"))
multinomial_case("Insurance_multinomial", "Insurance", "Age ~ C(District) + Group", AGES, weights = "Holders")
multinomial_case("Insurance_claims_multinomial", "Insurance", "Group ~ C(District)", c("1-1.5l", "1.5-2l", "<1l", ">2l"), weights = "Claims")
multinomial_case("HairEyeColor_multinomial", "HairEyeColor", "Hair ~ Eye + Sex", c("Black", "Blond", "Brown", "Red"), weights = "Freq")
multinomial_case("HairEyeColor_multinomial_intercept_only", "HairEyeColor", "Eye ~ 1", c("Blue", "Brown", "Green", "Hazel"), weights = "Freq")
multinomial_case("veteran_multinomial", "veteran", "celltype ~ age + karno + log(time)", c("adeno", "large", "smallcell", "squamous"))
multinomial_case("anorexia_multinomial", "anorexia", "Treat ~ Prewt + Postwt", c("CBT", "Cont", "FT"))
multinomial_case("quine_multinomial", "quine", "Age ~ Eth + Sex + sqrt(Days)", c("F0", "F1", "F2", "F3"))
multinomial_case("warpbreaks_multinomial", "warpbreaks", "tension ~ breaks + wool", c("H", "L", "M"))
multinomial_case("UCBAdmissions_multinomial", "UCBAdmissions", "Dept ~ Gender", c("A", "B", "C", "D", "E", "F"), weights = "Admitted")
multinomial_case("Titanic_multinomial", "Titanic", "Class ~ Sex", c("Crew", "1st", "2nd", "3rd"), weights = "No")
multinomial_case("esoph_multinomial", "esoph", "tobgp ~ alcgp", c("0-9g/day", "10-19", "20-29", "30+"), weights = "ncontrols")
multinomial_case("chickwts_multinomial", "chickwts", "feed ~ weight", c("casein", "horsebean", "linseed", "meatmeal", "soybean", "sunflower"))
multinomial_case("no_intercept_multinomial", "housing", "Sat ~ Infl - 1", c("High", "Low", "Medium"), weights = "Freq")


# ------------------------------------------------------------------- ordinal

# Distribution function, density and its derivative; upper is 1 - F.
CUMULATIVE <- list(
  logit = list(F = plogis, upper = function(x) plogis(-x), f = dlogis, slope = function(x) dlogis(x) * (plogis(-x) - plogis(x))),
  probit = list(F = pnorm, upper = function(x) pnorm(-x), f = dnorm, slope = function(x) ifelse(is.finite(x), -x * dnorm(x), 0)),
  cloglog = list(F = function(x) -expm1(-exp(x)), upper = function(x) exp(-exp(x)),
                 f = function(x) ifelse(is.finite(x), exp(x - exp(x)), 0),
                 slope = function(x) ifelse(is.finite(x), (1 - exp(x)) * exp(x - exp(x)), 0)),
  loglog = list(F = function(x) exp(-exp(-x)), upper = function(x) -expm1(-exp(-x)),
                f = function(x) ifelse(is.finite(x), exp(-x - exp(-x)), 0),
                slope = function(x) ifelse(is.finite(x), (exp(-x) - 1) * exp(-x - exp(-x)), 0)),
  cauchit = list(F = pcauchy, upper = function(x) pcauchy(-x), f = dcauchy,
                 slope = function(x) ifelse(is.finite(x), -2 * x / (pi * (1 + x^2)^2), 0)))

# P(y <= k) = F(threshold_k - eta); theta is the slopes, then the thresholds.
ordinal_terms <- function(m, X, classes, link) function(theta) {
  law <- CUMULATIVE[[link]]
  q <- ncol(X)
  cuts <- c(-Inf, theta[q + seq_len(classes - 1)], Inf)
  if (is.unsorted(cuts, strictly = TRUE)) return(list(value = -Inf))
  eta <- drop(X %*% theta[seq_len(q)]) + m$offset
  a <- cuts[m$y] - eta
  b <- cuts[m$y + 1] - eta
  # the difference on the side where both are small
  p <- ifelse(a > 0, law$upper(a) - law$upper(b), law$F(b) - law$F(a))
  # columns of db / dtheta and da / dtheta
  Db <- cbind(-X, outer(m$y, seq_len(classes - 1), "=="))
  Da <- cbind(-X, outer(m$y - 1, seq_len(classes - 1), "=="))
  fb <- law$f(b)
  fa <- law$f(a)
  gradient <- (Db * fb - Da * fa) / p
  bend <- crossprod(Db, Db * (m$f * law$slope(b) / p)) - crossprod(Da, Da * (m$f * law$slope(a) / p))
  list(value = sum(m$f * log(p)), score = colSums(m$f * gradient),
       information = crossprod(gradient, m$f * gradient) - bend, pearson = sum(m$f * (1 / p - 1)))
}

ordinal_case <- function(name, data, formula, levels, link = "logit", weights = NULL, offset = NULL) {
  m <- rows_of(data, formula, levels, weights, offset)
  classes <- length(levels)
  X <- m$X[, colnames(m$X) != "(Intercept)", drop = FALSE]
  q <- ncol(X)
  method <- if (link == "logit") "logistic" else link
  response <- m$frame[[m$response]]
  model <- update(m$model, . ~ . + offset(.offset))
  # thresholds alone, without and then with the offset
  share <- cumsum(tapply(m$f, m$y, sum) / sum(m$f))[-classes]
  quantile <- switch(link, logit = qlogis, probit = qnorm, cauchit = qcauchy,
                     cloglog = function(p) log(-log1p(-p)), loglog = function(p) -log(-log(p)))
  cuts <- unname(quantile(share)) + sum(m$f * m$offset) / sum(m$f)
  fit <- suppressWarnings(do.call(polr, list(
    model, m$frame, weights = quote(.f), start = c(rep(0, q), cuts), method = method, Hess = TRUE, control = list(reltol = 1e-15, maxit = 10000))))
  terms <- ordinal_terms(m, X, classes, link)
  start <- c(coef(fit), fit$zeta)
  if (link == "cauchit") {
    climb <- function(start) optim(start, function(t) -terms(t)$value, function(t) -terms(t)$score, method = "BFGS",
                                   control = list(reltol = 1e-15, maxit = 10000))
    ends <- list(climb(start), climb(c(rep(0, q), cuts)))
    values <- vapply(ends, `[[`, 0, "value")
    if (diff(range(values)) > 1e-6) message("NOTE ", name, ": starts differ, -log likelihoods ", toString(values))
    start <- ends[[which.min(values)]]$par
  }
  best <- newton(unname(start), terms)
  now <- best$terms
  error <- sqrt(diag(solve(now$information)))
  loose <- if (link == "cauchit") 2e-1 else 1e-3
  stopifnot(near(-2 * now$value, deviance(fit), if (link == "cauchit") 2e-2 else 1e-8),
            near(best$theta, c(coef(fit), fit$zeta), loose), near(error, sqrt(diag(vcov(fit))), loose),
            min(eigen(now$information)$values) > 0, max(error) < 50)
  if (link %in% c("logit", "probit") && q > 0) {
    family <- switch(link, logit = VGAM::cumulative(link = "logitlink", parallel = TRUE),
                     probit = VGAM::cumulative(link = "probitlink", parallel = TRUE))
    m$frame[[m$response]] <- ordered(response)
    vglm <- suppressWarnings(do.call(VGAM::vglm, list(
      m$model, family, m$frame, weights = quote(.f), offset = matrix(-m$offset, length(m$y), classes - 1),
      epsilon = 1e-12, maxit = 100)))
    found <- VGAM::coef(vglm)                # thresholds first, slopes with the other sign
    stopifnot(near(c(-found[-(1:(classes - 1))], found[1:(classes - 1)]), best$theta, 1e-5))
  }
  null <- newton(cuts, ordinal_terms(m, X[, 0, drop = FALSE], classes, link))
  stopifnot(null$score < SCORE_LIMIT)
  n <- sum(m$f)
  keep_case(c(common("ordinal", name, data, formula, link, m, levels, weights, offset), list(
    names = array_json(c(colnames(X), paste(levels[-classes], levels[-1], sep = "|"))),
    coefficients = array_json(best$theta), standard_errors = array_json(error),
    deviance = -2 * now$value, null_deviance = -2 * null$terms$value, log_likelihood = now$value,
    aic = 2 * length(best$theta) - 2 * now$value, pearson_chi2 = now$pearson, parameters = length(best$theta),
    df_residual = n - length(best$theta), nobs = n, score = best$score)))
}

LEVELS <- c("Low", "Medium", "High")
for (link in names(CUMULATIVE)) {
  ordinal_case(paste0("housing_", link), "housing", "Sat ~ Infl + Type + Cont", LEVELS, link, weights = "Freq")
  ordinal_case(paste0("quine_age_", link), "quine", "Age ~ Eth + sqrt(Days)", c("F0", "F1", "F2", "F3"), link)
  ordinal_case(paste0("infert_education_", link), "infert", "education ~ age + parity + C(induced)", EDUCATION, link)
  ordinal_case(paste0("warpbreaks_tension_", link), "warpbreaks", "tension ~ breaks", c("L", "M", "H"), link)
  ordinal_case(paste0("Insurance_age_", link), "Insurance", "Age ~ Group + C(District)", AGES, link, weights = "Holders")
}
ordinal_case("housing_crossed", "housing", "Sat ~ Infl*Type + Cont", LEVELS, weights = "Freq")
ordinal_case("housing_offset", "housing", "Sat ~ Infl + Type", LEVELS, weights = "Freq", offset = "log(Freq)/4")
ordinal_case("infert_offset", "infert", "education ~ age", EDUCATION, offset = "-parity/2")
ordinal_case("infert_offset_probit", "infert", "education ~ age + spontaneous", EDUCATION, "probit", weights = "parity", offset = "-parity/4")
ordinal_case("quine_offset_cloglog", "quine", "Age ~ Eth + Sex", c("F0", "F1", "F2", "F3"), "cloglog", offset = "sqrt(Days)/10")
ordinal_case("infert_frequency_loglog", "infert", "education ~ age + spontaneous", EDUCATION, "loglog", weights = "parity")
ordinal_case("esoph_tobacco", "esoph", "tobgp ~ alcgp", c("0-9g/day", "10-19", "20-29", "30+"), weights = "ncontrols")
ordinal_case("esoph_age", "esoph", "agegp ~ alcgp + tobgp", c("25-34", "35-44", "45-54", "55-64", "65-74", "75+"), weights = "ncontrols")
ordinal_case("esoph_age_cases_cloglog", "esoph", "agegp ~ tobgp", c("25-34", "35-44", "45-54", "55-64", "65-74", "75+"), "cloglog", weights = "ncases")
ordinal_case("housing_intercept_only", "housing", "Sat ~ 1", LEVELS, weights = "Freq")
ordinal_case("housing_text_order", "housing", "Sat ~ Infl", c("High", "Low", "Medium"), weights = "Freq")


# -------------------------------------------------------------------- output

write_cases("vector.json", c("MASS", "nnet", "VGAM"), "multinom and polr: reltol = 1e-15; then Newton", CASES)

print(table(vapply(CASES, function(x) paste(x$family, x$link), "")))
cat(length(CASES), "cases,", length(unique(vapply(CASES, `[[`, "", "data"))), "data sets,",
    "largest score", max(vapply(CASES, `[[`, 0, "score")), "\n")
