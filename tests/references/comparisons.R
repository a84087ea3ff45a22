# Reference values for tests between nested models: anova, drop1, add1 and step of
# stats, car's Anova of types 2 and 3, lmtest's lrtest, MASS on negative binomial fits,
# log-likelihoods of null models.
#
#   Rscript tests/references/comparisons.R
#
# reads data/NAME.csv, which glm.R and its like have written, and writes
# comparisons.json.  Every fit is made with the settings of common.R; contrasts sum
# to zero, as tests of type 3 want them, which no other number here depends on.

suppressPackageStartupMessages({ library(MASS); library(car); library(lmtest); library(nnet) })
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))
options(contrasts = c("contr.sum", "contr.poly"))
CONTROL <- glm.control(epsilon = EPSILON, maxit = MAXIT)

# a table without its row for the whole model: term names and the named columns, NULL where there are none
rows_of <- function(table, columns) {
  table <- as.data.frame(table)
  table <- table[!rownames(table) %in% c("NULL", "<none>", "Residuals"), , drop = FALSE]
  values <- lapply(columns, function(pattern) {
    found <- grep(pattern, names(table), value = TRUE)
    array_json(as.numeric(table[[found[1]]]))
  })
  c(list(terms = array_json(rownames(table))), setNames(values, names(columns)))
}

CASES <- list()
TESTED <- c(stat = "^(F|F value|LRT|LR Chisq|scaled dev\\.)$", pvalue = "^Pr\\(")

case <- function(name, data, formula, family, fam, weights = NULL, scope = NULL, base = NULL, known = TRUE,
                 kind = "variance", negbin = FALSE) {
  # of its own environment, where refits look for it
  assign("frame", read.csv(file.path(here, "data", paste0(data, ".csv")), stringsAsFactors = TRUE), globalenv())
  assign("w", if (is.null(weights)) rep(1, nrow(frame)) else frame[[weights]], globalenv())
  assign("fam", fam, globalenv())
  assign("CONTROL", CONTROL, globalenv())
  fit_of <- function(text) {
    if (negbin) eval(bquote(glm.nb(.(as.formula(text)), frame, control = glm.control(epsilon = 1e-14, maxit = 200))))
    else eval(bquote(glm(.(as.formula(text)), fam, frame, weights = w, control = CONTROL)))
  }
  fit <- fit_of(formula)
  test <- if (known) "Chisq" else "F"
  sequential <- suppressWarnings(as.data.frame(anova(fit, test = test)))
  if (known) sequential$LRT <- sequential$Deviance
  CASES[[name]] <<- list(
    name = name, data = paste0(data, ".csv"), formula = formula, family = family,
    link = fit$family$link, weights = if (is.null(weights)) NULL else list(type = kind, column = weights),
    base = base, scope = scope,
    anova1 = rows_of(sequential, c(df = "^Df$", deviance = "^Deviance$", resid_df = "^Resid. Df$",
                                   resid_dev = "^Resid. Dev$", TESTED)),
    anova2 = rows_of(Anova(fit, type = 2, test.statistic = "LR"), c(df = "^Df$", TESTED)),
    anova3 = rows_of(Anova(fit, type = 3, test.statistic = "LR"), c(df = "^Df$", TESTED)),
    drop1 = rows_of(drop1(fit, test = test), c(df = "^Df$", deviance = "^Deviance$",
                                               if (is.na(fit$aic)) NULL else c(aic = "^AIC$"), TESTED)),
    add1 = if (is.null(base)) NULL else
      rows_of(add1(fit_of(base), as.formula(paste("~ . +", scope)), test = "Rao"),
              c(df = "^Df$", stat = "^(Rao score|scaled Rao sc\\.)$", pvalue = "^Pr\\(")))
  invisible(fit)
}

case("warpbreaks", "warpbreaks", "breaks ~ wool*tension", "poisson", poisson(),
     base = "breaks ~ wool", scope = "tension")
case("warpbreaks_gamma", "warpbreaks", "breaks ~ wool*tension", "gamma", Gamma("log"), known = FALSE,
     base = "breaks ~ tension", scope = "wool")
case("mtcars", "mtcars", "mpg ~ wt*hp + qsec", "gaussian", gaussian(), known = FALSE,
     base = "mpg ~ wt", scope = "hp + qsec + disp + log(drat)")
case("mtcars_weights", "mtcars", "mpg ~ wt*hp + qsec", "gaussian", gaussian(), weights = "disp", known = FALSE,
     base = "mpg ~ wt", scope = "hp + qsec")
case("iris", "iris", "Sepal_Length ~ Species*Petal_Length + Petal_Width + Species:Petal_Width", "gaussian",
     gaussian("log"), known = FALSE, base = "Sepal_Length ~ Species + Petal_Length",
     scope = "Petal_Width + Sepal_Width + Species:Petal_Length")
case("Titanic", "Titanic", "cbind(Yes, No) ~ Class*Sex + Age", "binomial", binomial(),
     base = "cbind(Yes, No) ~ Class + Sex", scope = "Age + Class:Sex")
case("birthwt_probit", "birthwt", "low ~ age*lwt + smoke + ht", "binomial", binomial("probit"),
     base = "low ~ age", scope = "lwt + smoke + ht + ui")
# of a model with an offset in its formula R's add1(test = "Rao") is 0: no reference
case("Insurance", "Insurance", "Claims ~ Group*Age + offset(log(Holders))", "poisson", poisson())
case("quine_empty_cell", "quine", "Days ~ Eth*Sex + Age + Lrn", "poisson", poisson(),
     base = "Days ~ Eth", scope = "Sex + Age + Lrn + Eth:Sex")
case("quine_negbin", "quine", "Days ~ Eth*Sex + Lrn", "negative_binomial", NULL, negbin = TRUE)
case("epil_quasi", "epil", "y ~ lbase*trt + lage", "quasipoisson", quasipoisson(), known = FALSE,
     base = "y ~ lbase", scope = "trt + lage + lbase:trt")
case("iris_without_intercept", "iris", "Petal_Width ~ Species + Sepal_Width - 1", "gaussian", gaussian(), known = FALSE)

# ---------------------------------------------------- responses of classes

frame <- read.csv(file.path(here, "data", "housing.csv"), stringsAsFactors = TRUE)
frame$Sat <- factor(frame$Sat, c("Low", "Medium", "High"), ordered = TRUE)
ordinal <- polr(Sat ~ Infl*Type + Cont, frame, weights = Freq, Hess = TRUE, control = list(reltol = 1e-15, maxit = 1000))
deviance_of <- function(text)
  deviance(multinom(as.formula(text), frame, weights = Freq, trace = FALSE, reltol = 1e-15, abstol = 0, maxit = 2000))
texts <- c("Sat ~ 1", "Sat ~ Infl", "Sat ~ Infl + Type", "Sat ~ Infl + Type + Cont", "Sat ~ Infl*Type + Cont")
CLASSES <- list(
  ordinal2 = rows_of(Anova(ordinal, type = 2), c(df = "^Df$", TESTED)),
  ordinal3 = rows_of(Anova(ordinal, type = 3), c(df = "^Df$", TESTED)),
  multinomial1 = array_json(-diff(vapply(texts, deviance_of, 0))))

# ------------------------------------------------ two fits, criteria, paths

lr <- function(small, big) {
  table <- lrtest(small, big)
  list(stat = table$Chisq[2], df = abs(table$Df[2]), pvalue = table[["Pr(>Chisq)"]][2])
}
frame <- read.csv(file.path(here, "data", "quine.csv"), stringsAsFactors = TRUE)
nb <- function(f) glm.nb(f, frame, control = glm.control(epsilon = 1e-14, maxit = 200))
one <- nb(Days ~ Eth + Sex); two <- nb(Days ~ Eth*Sex + Lrn)
PAIRS <- list(
  negbin = lr(one, two),
  poisson = lr(glm(Days ~ Eth + Sex, poisson, frame, control = CONTROL),
               glm(Days ~ Eth*Sex + Lrn, poisson, frame, control = CONTROL)))
f <- anova(glm(Days + 1 ~ Eth + Sex, Gamma("log"), frame, control = CONTROL),
           glm(Days + 1 ~ Eth*Sex + Lrn, Gamma("log"), frame, control = CONTROL), test = "F")
PAIRS$gamma <- list(stat = f$F[2], df = f$Df[2], pvalue = f[["Pr(>F)"]][2])

nulls <- list(
  poisson = glm(Days ~ 1, poisson, frame, control = CONTROL),
  gamma = glm(Days + 1 ~ 1, Gamma("log"), frame, control = CONTROL),
  gaussian = glm(Days ~ 1, gaussian, frame, control = CONTROL),
  inverse_gaussian = glm(Days + 1 ~ 1, inverse.gaussian("log"), frame, control = CONTROL))
NULLS <- lapply(nulls, function(fit) as.numeric(logLik(fit)))

path_of <- function(fit, ...) {
  found <- step(fit, trace = 0, ...)
  path <- found$anova
  list(steps = array_json(as.character(path$Step)), aic = array_json(path$AIC),
       resid_dev = array_json(path[["Resid. Dev"]]))
}
swiss <- read.csv(file.path(here, "data", "swiss.csv"))
birth <- read.csv(file.path(here, "data", "birthwt.csv")); birth$race <- factor(birth$race)
full <- glm(Fertility ~ Agriculture + Examination + Education + Catholic + Infant_Mortality, gaussian, swiss)
empty <- glm(Fertility ~ 1, gaussian, swiss)
low <- glm(low ~ age + lwt + smoke + ht + ui + smoke:lwt, binomial, birth, control = CONTROL)
none <- glm(low ~ 1, binomial, birth, control = CONTROL)
upper <- low ~ age + lwt + smoke + ht + ui + smoke:lwt
PATHS <- list(
  swiss_backward = path_of(full),
  swiss_forward = path_of(empty, scope = formula(full), direction = "forward"),
  low_backward = path_of(low),
  low_both = path_of(none, scope = upper, direction = "both"),
  low_bic = path_of(low, k = log(nrow(birth))))

version_of <- function(package) packageDescription(package)$Version
packages <- c("MASS", "car", "lmtest", "nnet")
versions <- c(list(R = paste(R.version$major, R.version$minor, sep = ".")), setNames(lapply(packages, version_of), packages))
output <- file(file.path(here, "comparisons.json"), "wb")
writeLines(c("{", paste0("\"versions\": ", json(versions), ","),
             paste0("\"settings\": ", json(SETTINGS), ","),
             paste0("\"classes\": ", json(CLASSES), ","), paste0("\"pairs\": ", json(PAIRS), ","),
             paste0("\"nulls\": ", json(NULLS), ","), paste0("\"paths\": ", json(PATHS), ","),
             "\"cases\": [", paste(vapply(CASES, record, ""), collapse = ",\n"), "]", "}"), output, sep = "\n")
close(output)
