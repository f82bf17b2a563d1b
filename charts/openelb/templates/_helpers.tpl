{{- define "openelb.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "openelb.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a workload is found by. It never changes: selectors cannot. */}}
{{- define "openelb.selector" -}}
app: openelb
component: {{ .component }}
{{- end -}}

{{/* Labels of every object: (dict "root" $ "component" "controller"). */}}
{{- define "openelb.labels" -}}
{{ include "openelb.selector" . }}
app.kubernetes.io/name: {{ include "openelb.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The image of a component: (dict "root" $ "image" .Values.controller.image). */}}
{{- define "openelb.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := .image.repository -}}
{{- if $registry -}}{{- $name = printf "%s/%s" $registry .image.repository -}}{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.root.Values.global.tag | default .image.tag | default (printf "v%s" .root.Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}

{{- define "openelb.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* For pods that need nothing of the node. */}}
{{- define "openelb.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "openelb.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Which nodes a pod may run on. */}}
{{- define "openelb.nodeSelector" -}}
kubernetes.io/os: linux
{{- range $key, $value := . }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Replicas stay on different nodes and zones where there are any: (dict "component" c "affinity" a). */}}
{{- define "openelb.spread" -}}
affinity:
{{- if .affinity }}
  {{- toYaml .affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "openelb.selector" . | nindent 14 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "openelb.selector" . | nindent 8 }}
{{- end -}}

{{/* Tolerations with the time that a lost node keeps the pods: (dict "tolerations" t "seconds" s). */}}
{{- define "openelb.tolerations" -}}
tolerations:
  {{- with .tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .seconds }}}
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .seconds }}}
{{- end -}}

{{/* Who and where a process is. */}}
{{- define "openelb.env" -}}
- name: OPENELB_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end -}}

{{/* Values that mean nothing any more, and what to say about them. */}}
{{- define "openelb.refuse" -}}
{{- if .Values.speaker.vip -}}
{{- fail "speaker.vip: VIP mode is not supported yet. Use Eips with `protocol: layer2` and set speaker.vip to false." -}}
{{- end -}}
{{- with .Values.speaker.apiHosts -}}
{{- if ne . ":50051" -}}
{{- fail "speaker.apiHosts: speakers have no control port. Remove it; BgpPeer status and metrics tell what it told." -}}
{{- end -}}
{{- end -}}
{{- with .Values.speaker.memberlistSecret -}}
{{- if lt (len .) 16 -}}
{{- fail (printf "speaker.memberlistSecret: a key needs 16 bytes or more, and this one has %d. Leave it empty: a good one is made and kept in the Secret memberlist." (len .)) -}}
{{- end -}}
{{- end -}}
{{- include "openelb.refuseTag" (list "global.tag" .Values.global.tag) -}}
{{- range $component := list "controller" "speaker" "webhook" -}}
{{- $image := (index $.Values $component).image -}}
{{- if regexMatch "(^|/)kubesphere(io|dev)?/" $image.repository -}}
{{- fail (printf "%s.image.repository: %s is an image of OpenELB. Remove the value, or name your copy of openelb-%s." $component $image.repository $component) -}}
{{- end -}}
{{- include "openelb.refuseTag" (list (printf "%s.image.tag" $component) $image.tag) -}}
{{- end -}}
{{- with .Values.admission.image -}}
{{- if or (contains "certgen" (.repository | default "")) (and .tag (not .repository)) -}}
{{- fail "admission.image: certificates are made by the webhook's own image. Remove admission.image, or set webhook.image." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A tag that only OpenELB's images have: (list "global.tag" "v0.6.0"). */}}
{{- define "openelb.refuseTag" -}}
{{- $tag := index . 1 | default "" -}}
{{- if regexMatch "^(v?0\\.[0-6](\\..*)?|master)$" $tag -}}
{{- fail (printf "%s: %s is a release of OpenELB. Remove the value: this chart names the images that belong to it." (index . 0) $tag) -}}
{{- end -}}
{{- end -}}

{{/* The port that the webhook's pods listen on; `controller.webhookPort` is where OpenELB's chart has it. */}}
{{- define "openelb.webhookPort" -}}
{{- .Values.controller.webhookPort | default .Values.webhook.port -}}
{{- end -}}

{{/* Names under which the API server calls the webhook, beside those that it knows itself. */}}
{{- define "openelb.webhookHosts" -}}
{{- $name := printf "%s-webhook" (include "openelb.fullname" .) -}}
{{- printf "%s,%s.%s,%s.%s.svc" $name $name .Release.Namespace $name .Release.Namespace -}}
{{- end -}}

{{/* Arguments that guard the metrics. */}}
{{- define "openelb.secureArgs" -}}
{{- with .Values.monitoring.secure -}}
{{- if .enable }}
- --metrics-secure
{{- if .certificateSecret }}
- --metrics-cert-dir=/metrics-certificate
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* How the kubelet asks on the port of the metrics. It verifies no certificate. */}}
{{- define "openelb.probe" -}}
port: metrics{{ if .Values.monitoring.secure.enable }}, scheme: HTTPS{{ end }}
{{- end -}}

{{/* Whether a certificate for the metrics is mounted; empty for no. */}}
{{- define "openelb.metricsCertificate" -}}
{{- with .Values.monitoring.secure }}{{ if .enable }}{{ .certificateSecret | default "" }}{{ end }}{{ end -}}
{{- end -}}

{{/* Rules to ask the API server who scrapes. */}}
{{- define "openelb.scrapeRules" -}}
{{- if .Values.monitoring.secure.enable }}
# Whose a scraper's token is, and whether its owner may.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end }}
{{- end -}}

{{/* What a monitor's endpoint says besides its port. */}}
{{- define "openelb.scrape" -}}
{{- if .Values.monitoring.secure.enable }}
scheme: https
tlsConfig:
  {{- toYaml (.Values.monitoring.secure.tlsConfig | default (dict "insecureSkipVerify" true)) | nindent 2 }}
authorization:
  credentials: {name: {{ include "openelb.fullname" . }}-scraper, key: token}
{{- end }}
{{- end -}}

{{/* Labels of a monitor: (dict "root" $ "component" "controller"). */}}
{{- define "openelb.monitorLabels" -}}
{{ include "openelb.labels" . }}
{{- with .root.Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
